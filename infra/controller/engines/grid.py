"""Grid search: every combination once, in the order of the file, the last parameter changing fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.parameters import Categorical, Parameter, identity
from prunefleet.objective.errors import BadInput


class GridSearch:
    """Takes the first combination that no run has, whatever became of that run."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """See `Controller.suggest`; `seed` is not used. Raises `BadInput` for a parameter without countable values."""
        columns = [_values(leaf) for leaf in sweep.space.free]
        names = [leaf.name for leaf in sweep.space.free]
        tried = {sweep.space.point(trial.params) for trial in trials}
        size = math.prod(len(column) for column in columns)
        for place in range(min(size, len(tried) + 1)):
            params = dict(zip(names, _combination(columns, place), strict=True))
            if sweep.space.point(params) not in tried:
                return Suggestion(params, sweep.space.config(params), {"kind": "grid", "place": place + 1, "of": size})
        return Exhausted(f"all {size} combinations of the grid have been tried")


def _values(leaf: Parameter) -> tuple[Any, ...]:
    if isinstance(leaf.distribution, Categorical) and leaf.distribution.probabilities is not None:
        raise BadInput(
            f"parameters.{leaf.name}.probabilities", list(leaf.distribution.probabilities), "remove it for method grid"
        )
    if leaf.distribution.levels is None:
        raise BadInput(f"parameters.{leaf.name}", "a continuous distribution", "give values or a q for method grid")
    return tuple({identity(value): value for value in leaf.distribution.levels}.values())


def _combination(columns: Sequence[tuple[Any, ...]], place: int) -> list[Any]:
    """The combination at `place`, read as a number whose digits have the columns' lengths as bases."""
    digits = []
    for column in reversed(columns):
        place, digit = divmod(place, len(column))
        digits.append(column[digit])
    return digits[::-1]
