"""Random search: every run is an independent draw from the sweep's distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.parameters import ParameterSpace

DRAWS = 200  # how often a draw that was tried before is drawn again


class RandomSearch:
    """Draws until it meets a combination not tried yet; repeats one only when new ones are too rare to meet."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """See `Controller.suggest`; never exhausted, as in W&B."""
        rng, space = np.random.default_rng(seed), sweep.space
        tried = {space.point(trial.params) for trial in trials}
        params = draw(space, rng)
        for _ in range(DRAWS):
            if space.point(params) not in tried:
                break
            params = draw(space, rng)
        return Suggestion(params, space.config(params), {"kind": "random"})


def draw(space: ParameterSpace, rng: np.random.Generator) -> dict[str, Any]:
    """One value per free leaf, each from its own distribution."""
    return {leaf.name: leaf.distribution.quantile(float(rng.random())) for leaf in space.free}
