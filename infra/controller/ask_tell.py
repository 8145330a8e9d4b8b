"""The search from Python, without a server: ask for candidates, tell what they came to, have one recommended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunefleet.infra.controller.contract import StoredTrial, Suggestion, SweepSpec, devices_of, suggest_many
from prunefleet.infra.controller.engines.registry import controller
from prunefleet.infra.controller.pruning.engine import Recommendation, recommend
from prunefleet.infra.controller.threads import one_thread
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.score import values_on_all
from prunefleet.objective.profiles.profile import Profile

MEASURED = ("scored", "skipped")
Figure = float | Mapping[str, float] | None  # of the one device, or by the names of several


class AskTell:
    """One sweep's search in this process.

    `config` is a sweep file's content with `method: bayes`, `profile` what `prunefleet plan` made. The same trials
    in the same order give the same suggestions, in any process. Raises `BadInput` where the two do not fit.
    """

    def __init__(self, config: Mapping[str, Any], profile: Profile, name: str = "local") -> None:
        self.sweep = SweepSpec.from_config(name, config, profile)
        if self.sweep.goal is None:
            raise BadInput("parameters.objective", None, "say what the sweep is after, for example kind: fastest")
        self._profile, self._goal, self._devices = profile, self.sweep.goal, devices_of(profile)
        self._trials: dict[str, StoredTrial] = {}
        self._search = controller(self.sweep.method, self.sweep.engine)

    @property
    def trials(self) -> tuple[StoredTrial, ...]:
        """All that were asked for, oldest first."""
        return tuple(self._trials.values())

    def ask(self, count: int = 1) -> dict[str, Suggestion]:
        """The next `count` candidates by the names to tell their results under; fewer where nothing is left to try."""
        begun = {}
        for found in suggest_many(self._search, self.sweep, self.trials, count):
            if isinstance(found, Suggestion):
                name = f"t{len(self._trials)}"
                self._trials[name] = StoredTrial(name, found.params, "running")
                begun[name] = found
        return begun

    def tell(
        self,
        name: str,
        latency_ratio: Figure = None,
        metric: float | None = None,
        outcome: str = "scored",
        baseline_ms: Figure = None,
        drop: float | None = None,
    ) -> None:
        """What the trial `name` came to: its latency over the dense network's, and the objective's metric, a fraction.

        `outcome` "skipped" has a latency alone, "infeasible" and "diverged" neither; `baseline_ms` is the dense
        network's median, for a goal in milliseconds. With a profile of several devices both are mappings with a number
        for each by its name, and the slowest counts. The drop is counted from the profile's dense metric, which is of
        the first examples of validation where there are many: a metric of other examples needs `drop`. Raises
        `BadInput` for a name that is not waited for, a figure that is missing, or other devices than the profile's.
        """
        if name not in self._trials or not self._trials[name].pending:
            waiting = ", ".join(trial.name for trial in self.trials if trial.pending)
            raise BadInput("name", name, f"name a trial that is waited for: {waiting or 'none is'}")
        ratio, ratios = self._timed("latency_ratio", latency_ratio)
        dense_ms, all_dense_ms = self._timed("baseline_ms", baseline_ms)
        told = replace(
            self._trials[name],
            state="finished",
            outcome=outcome,
            metric=metric,
            drop=self._profile.dense_metric - metric if drop is None and metric is not None else drop,
            latency_ratio=ratio,
            baseline_ms=dense_ms,
            latency_ratios=ratios,
            baselines_ms=all_dense_ms,
        )
        told = _with_slowest(told)
        if outcome in MEASURED and any(told.measured_on(device)[0] is None for device in self._devices):
            raise BadInput("latency_ratio", latency_ratio, f"give a finite number for a trial that is {outcome}")
        if outcome == "scored" and (told.drop is None or told.metric is None):
            raise BadInput("metric", metric, "give a finite number for a trial that is scored")
        self._trials[name] = replace(told, value=self._score(told))

    def recommend(self) -> Recommendation | None:
        """See `prunefleet.infra.controller.pruning.engine.recommend`."""
        with one_thread():
            return recommend(self.sweep, self._profile, self._goal, self.trials, self.sweep.seed(len(self._trials)))

    def _score(self, trial: StoredTrial) -> float | None:
        timed = [(ratio, ms) for ratio, ms in map(trial.measured_on, self._devices) if ratio is not None]
        if trial.outcome != "scored" or trial.metric is None or trial.drop is None or not timed:
            return None
        return float(values_on_all(trial.metric, trial.drop, timed, self._goal))

    def _timed(self, name: str, told: Figure) -> tuple[float | None, Mapping[str, float]]:
        """A figure of the only device, or those of several. Raises `BadInput` for other devices than the profile's."""
        names = [device for device in self._devices if device is not None]
        if told is None or not names:
            if isinstance(told, Mapping):
                raise BadInput(name, told, "give one number: the profile is of one device")
            return told, {}
        if not isinstance(told, Mapping) or set(told) != set(names):
            raise BadInput(name, told, f"give a mapping with one number for each of {', '.join(names)}")
        return None, told


def _with_slowest(trial: StoredTrial) -> StoredTrial:
    """The trial with the figures of its slowest device beside those of each, as a run's summary has them."""
    slowest = max(trial.latency_ratios, key=trial.latency_ratios.__getitem__, default=None)
    if slowest is None:
        return trial
    ratio, baseline_ms = trial.measured_on(slowest)
    return replace(trial, latency_ratio=ratio, baseline_ms=baseline_ms)
