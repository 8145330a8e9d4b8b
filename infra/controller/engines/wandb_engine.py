"""W&B's own published Bayesian engine (`sweeps`, an extra) as a controller: the only module that knows it.

It sees the sweep's metric alone: a Gaussian process on at most 100 runs, expected improvement over random points, an
impossible trial as bad as the worst. Host failures are kept from it, as from every controller here. Nested parameters
enter by their leaves' names, which is all that the engine needs of them.
Source: https://github.com/wandb/sweeps, 0.2.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.parameters import settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it was written for an older pydantic, and says so at each import
    import sweeps

METRIC = "metric"


class WandbSearch:
    """Asks W&B's engine for the next run."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """See `Controller.suggest`; it may propose a point twice, and is never exhausted."""
        block = settings(sweep.parameters)
        asked = {
            "method": "bayes",
            "metric": {"name": METRIC, "goal": "maximize" if sweep.maximise else "minimize"},
            "parameters": {leaf.name: dict(block[leaf.name]) for leaf in sweep.space.free},
        }
        told = [run for trial in trials if (run := _run(sweep, trial)) is not None]
        with seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its process' fit, which it takes as it comes
            found = sweeps.next_run(asked, told)
        params = {leaf.name: found.config[leaf.name]["value"] for leaf in sweep.space.free}
        why = {"kind": "engine", "engine": "wandb", **_expected(found.search_info or {}, sweep.maximise)}
        return Suggestion(params, sweep.space.config(params), why)


def _run(sweep: SweepSpec, trial: StoredTrial) -> sweeps.SweepRun | None:
    """The trial as the engine knows runs; None where a host is to blame, or a parameter is missing."""
    if sweep.space.point(trial.params) is None:
        return None
    state = "running" if trial.pending else "finished" if trial.answered else "failed" if trial.impossible else None
    if state is None:
        return None
    summary = {} if trial.value is None or trial.pending else {METRIC: trial.value}
    config = {leaf.name: {"value": trial.params[leaf.name]} for leaf in sweep.space.free}
    return sweeps.SweepRun(name=trial.name, state=state, config=config, summaryMetrics=summary)


def _expected(info: Mapping[str, Any], maximise: bool) -> dict[str, Any]:
    """What the engine thinks of its point; it minimises, so a metric to maximise has the other sign there."""
    numbers = {name: float(info.get(name, np.nan)) for name in ("predicted_value", "expected_improvement")}
    said: dict[str, Any] = {}
    if np.isfinite(numbers["predicted_value"]):
        said["value"] = {"expected": numbers["predicted_value"] * (-1 if maximise else 1)}
    if np.isfinite(numbers["expected_improvement"]):
        value = round(numbers["expected_improvement"], 4)
        said["acquisition"] = {"name": "expected improvement, in standard deviations", "value": value}
    return said


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The engine draws from numpy's global numbers: seed them, and leave them as they were."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
