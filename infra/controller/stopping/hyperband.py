"""Early termination: which running runs to give up on, judged by the metric they have logged so far.

W&B's `early_terminate: {type: hyperband}`, after its sweep reference: a run is judged at brackets, which are numbers of
times the metric was logged, whatever the step. At the last bracket where it has company, its best value so far
(`strict`: its value there) must be among the best 1/eta of all values logged there, rounded up to whole runs.
Sources: https://docs.wandb.ai/models/sweeps/sweep-config-keys, and Li et al., Hyperband (arXiv 1603.06560).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from prunefleet.objective.errors import BadInput

MOST_BRACKETS = 100
MOST_ITERATIONS = 10**15  # beyond that a float cannot count
KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


@dataclass(frozen=True)
class Hyperband:
    """When and how sharply runs are judged: by `max_iter` with `s` brackets or by `min_iter`, a factor `eta` apart."""

    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3.0
    strict: bool = False

    @classmethod
    def from_config(cls, block: Mapping[str, Any]) -> Self:
        """The rule in a sweep's `early_terminate` block. Raises `BadInput` naming the setting that cannot be right."""
        numbers = {name: whole(block, name) for name in ("min_iter", "max_iter", "s")}
        rule = cls(**numbers, eta=_eta(block.get("eta", 3)), strict=_strict(block.get("strict", False)))
        rule._check()
        return rule

    @property
    def by_max_iter(self) -> bool:
        """Whether brackets are counted back from `max_iter`; `min_iter` is then left out."""
        return self.max_iter is not None and self.s is not None

    def brackets(self, longest: int) -> list[int]:
        """The brackets up to `longest` values, ascending: [3, 9, 27, …] for min_iter 3, [3, 9] for max_iter 27, s 2."""
        powers = [self.eta**power for power in range(MOST_BRACKETS) if power * math.log(self.eta) < 64]
        if self.by_max_iter:
            assert self.max_iter is not None
            found = [int(self.max_iter / power) for power in powers[1 : (self.s or 0) + 1]]
        else:
            found = [int((self.min_iter or 1) * power) for power in powers]
        return sorted({bracket for bracket in found if 1 <= bracket <= longest})

    def to_stop(self, runs: Sequence[RunHistory], *, maximise: bool) -> list[StopDecision]:
        """The running runs that it gives up on, in the order of `runs`; a value that is not finite is the worst."""
        sign = -1.0 if maximise else 1.0
        brackets = self.brackets(max((len(run.history) for run in runs), default=0))
        costs = {bracket: _costs_at(bracket, runs, sign) for bracket in brackets}
        # A run that is alone at a bracket says nothing there; a fast one may be there before the others are looked at.
        thresholds = {bracket: _threshold(found, self) for bracket, found in costs.items() if len(found) > 1}
        found = [_judge(run, self, thresholds, sign) for run in runs if run.running]
        return [stop for stop in found if stop is not None]

    @property
    def ignored(self) -> list[str]:
        """What is left out beside other settings, a line each."""
        if self.min_iter is None or self.max_iter is None:
            return []
        left, why = ("min_iter", "max_iter and s") if self.by_max_iter else ("max_iter", "min_iter without s")
        return [f"early_terminate.{left}: left out beside {why}"]

    def _check(self) -> None:
        if self.max_iter is None and self.min_iter is None:
            raise BadInput("early_terminate.min_iter", None, "give min_iter, or max_iter and s")
        if self.max_iter is not None and self.s is None and self.min_iter is None:
            raise BadInput("early_terminate.s", None, "give the number of brackets that max_iter needs, or min_iter")
        if self.by_max_iter and not self.brackets(self.max_iter or 0):
            raise BadInput("early_terminate.max_iter", self.max_iter, f"give at least eta ({self.eta:g})")


@dataclass(frozen=True)
class RunHistory:
    """A run as it is judged: every value of the metric it has logged, in order; may it be stopped, has it finished?"""

    name: str
    history: Sequence[float]
    running: bool
    finished: bool = False


@dataclass(frozen=True)
class StopDecision:
    """A run to stop, and why: its `value` at `bracket` was worse than `threshold`, the last that went on."""

    name: str
    bracket: int
    value: float
    threshold: float

    def __str__(self) -> str:
        return (
            f"early_terminate: {self.value:.6g} after {self.bracket} values, "
            f"where the best part went on at {self.threshold:.6g}"
        )


def _judge(run: RunHistory, rule: Hyperband, thresholds: Mapping[int, float], sign: float) -> StopDecision | None:
    reached = [bracket for bracket in thresholds if bracket <= len(run.history)]
    if not reached:
        return None
    bracket = reached[-1]
    cost = _cost(run.history[bracket - 1], sign) if rule.strict else min(_costs(run.history, sign))
    if cost <= thresholds[bracket]:
        return None
    return StopDecision(run.name, bracket, sign * cost, sign * thresholds[bracket])


def _threshold(costs: Sequence[float], rule: Hyperband) -> float:
    """The worst cost that is among the best 1/eta."""
    going_on = math.ceil(len(costs) / rule.eta - 1e-9)
    return sorted(costs)[max(going_on, 1) - 1]


def _costs_at(bracket: int, runs: Iterable[RunHistory], sign: float) -> list[float]:
    return [_cost(run.history[bracket - 1], sign) for run in runs if len(run.history) >= bracket]


def _costs(history: Iterable[float], sign: float) -> Iterable[float]:
    return (_cost(value, sign) for value in history)


def _cost(value: float, sign: float) -> float:
    return sign * value if math.isfinite(value) else math.inf


def whole(block: Mapping[str, Any], name: str) -> int | None:
    """A setting that counts; None where it is not given. Raises `BadInput`."""
    value = block.get(name)
    if value is None:
        return None
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not 1 <= value <= MOST_ITERATIONS or value != int(value):
        raise BadInput(f"early_terminate.{name}", value, "give a whole number of at least 1")
    return int(value)


def _eta(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value < math.inf:
        raise BadInput("early_terminate.eta", value, "give a number above 1")
    return float(value)


def _strict(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadInput("early_terminate.strict", value, "give true or false")
    return value
