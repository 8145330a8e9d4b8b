"""Optuna's Gaussian-process sampler (an extra) as a controller: the only module of `infra` that knows Optuna.

It sees the sweep's metric alone. A number enters by its place in its own distribution or in the list of its levels, so
a logarithmic parameter is searched logarithmically. Pending trials enter as running ones; an impossible trial as bad as
the worst. Source: https://optuna.readthedocs.io, `optuna.samplers.GPSampler`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.parameters import Parameter, identity

STARTUP = 10  # random points before the first model, as many as Optuna takes unless told otherwise


class OptunaAxis:
    """One free parameter in Optuna's terms."""

    def __init__(self, leaf: Parameter) -> None:
        self.leaf, self._levels = leaf, leaf.distribution.levels
        self._places = {identity(value): place for place, value in enumerate(self._levels or ())}

    @property
    def distribution(self) -> BaseDistribution:
        """Places in the list of levels, or shares of the distribution."""
        if self._levels is None:
            return FloatDistribution(0.0, 1.0)
        if self.leaf.distribution.numeric:
            return IntDistribution(0, len(self._levels) - 1)
        return CategoricalDistribution(range(len(self._levels)))

    def encode(self, value: object) -> float | int | None:
        """A trial's value; None for one that the sweep does not have."""
        return self.leaf.distribution.unit(value) if self._levels is None else self._places.get(identity(value))

    def decode(self, number: Any) -> Any:
        """The value that Optuna's number stands for."""
        return self.leaf.distribution.quantile(float(number)) if self._levels is None else self._levels[int(number)]


class OptunaSearch:
    """Asks Optuna for the next run."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """See `Controller.suggest`; it may propose a point twice, and is never exhausted."""
        axes = {leaf.name: OptunaAxis(leaf) for leaf in sweep.space.free}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.GPSampler(seed=seed % 2**32, n_startup_trials=STARTUP)
            study = optuna.create_study(direction="maximize" if sweep.maximise else "minimize", sampler=sampler)
            study.add_trials(_told(sweep, axes, trials))
            asked = study.ask({name: axis.distribution for name, axis in axes.items()})
        params = {name: axis.decode(asked.params[name]) for name, axis in axes.items()}
        return Suggestion(params, sweep.space.config(params), {"kind": "engine", "engine": "optuna"})


def _told(sweep: SweepSpec, axes: dict[str, OptunaAxis], trials: Sequence[StoredTrial]) -> list[FrozenTrial]:
    values = [trial.value for trial in trials if trial.answered and trial.value is not None]
    worst = (min if sweep.maximise else max)(values, default=None)
    found = [_trial(axes, trial, worst) for trial in trials if sweep.space.point(trial.params) is not None]
    return [trial for trial in found if trial is not None]


def _trial(axes: dict[str, OptunaAxis], trial: StoredTrial, worst: float | None) -> FrozenTrial | None:
    """The trial as Optuna knows trials; None where it taught nothing."""
    params = {name: axis.encode(trial.params[name]) for name, axis in axes.items()}
    if any(number is None for number in params.values()):
        return None
    known: dict[str, Any] = {
        "params": params,
        "distributions": {name: axis.distribution for name, axis in axes.items()},
    }
    if trial.pending:
        return optuna.trial.create_trial(state=TrialState.RUNNING, **known)
    value = worst if trial.impossible else trial.value if trial.answered else None
    return None if value is None else optuna.trial.create_trial(value=value, **known)
