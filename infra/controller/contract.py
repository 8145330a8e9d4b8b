"""The contract of a controller: stored trials in, one suggestion out.

A controller is a pure, seeded function. The same sweep, trials and seed give the same suggestion in any process, so a
restart changes nothing and a suggestion can be made ahead of time. What a trial teaches:

- `scored` and `skipped` teach what they measured;
- `infeasible` and `diverged` teach that the network could not be had there;
- a trial that is pending or running counts as tried, with the value that the model expects of it;
- a host's failure (crashed, preempted, `kept_failing`) teaches nothing.

This module knows no numerical library, so the hub can import it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, Self

from prunefleet.infra.controller.parameters import ParameterSpace, parse
from prunefleet.objective import checks
from prunefleet.objective.devices import device_names
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.sweepfile import DEFAULT_ENGINE, PROGRAM, engine_of

METHODS = ("bayes", "random", "grid")
WAITING = frozenset({"pending", "running", "preempting", "preempted"})
IMPOSSIBLE = frozenset({"infeasible", "diverged"})
HOST_FAILED = frozenset({"kept_failing"})


@dataclass(frozen=True)
class StoredTrial:
    """What a controller sees of a run.

    `params` holds the free parameters by leaf name (`ratio.stem`), `value` the sweep's metric, `drop` the loss of the
    objective's metric against the dense model (a fraction), `latency_ratio` the worst device's ratio to the dense
    model, `baseline_ms` that device's dense median in milliseconds. Where a sweep has several devices,
    `latency_ratios` and `baselines_ms` have both of each device by its name. A number that is not finite is kept as
    None, or left out of these. `unread` names those. `prior` is a run of another sweep that this one was told of: it
    teaches, and does not count towards `run_cap`.
    """

    name: str
    params: Mapping[str, Any]
    state: str
    value: float | None = None
    drop: float | None = None
    latency_ratio: float | None = None
    metric: float | None = None
    outcome: str | None = None
    baseline_ms: float | None = None
    latency_ratios: Mapping[str, float] = field(default_factory=dict)
    baselines_ms: Mapping[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    prior: bool = False
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unread = list(self.unread)
        for name in ("value", "drop", "latency_ratio", "metric", "baseline_ms"):
            given = getattr(self, name)
            number = _finite(given)
            unread += [name] if given is not None and number is None else []
            object.__setattr__(self, name, number)
        for name in ("latency_ratios", "baselines_ms"):
            told = {device: each for device, each in getattr(self, name).items() if each is not None}
            finite = {device: number for device, each in told.items() if (number := _finite(each)) is not None}
            unread += [f"{name}.{device}" for device in told if device not in finite]
            object.__setattr__(self, name, finite)
        object.__setattr__(self, "unread", tuple(unread))
        object.__setattr__(self, "history", tuple(self.history))

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come: claimed, running, or queued again after a host's failure."""
        return self.state in WAITING

    @property
    def impossible(self) -> bool:
        """Whether it taught that no network can be had at its parameters."""
        return not self.pending and self.outcome in IMPOSSIBLE

    @property
    def answered(self) -> bool:
        """Whether what it measured may be learnt from: ended by itself, or stopped early with a value."""
        ended = self.state in ("finished", "killed")
        return ended and self.outcome not in IMPOSSIBLE | HOST_FAILED

    def measured_on(self, device: str | None) -> tuple[float | None, float | None]:
        """Its latency ratio on one of `devices_of` a profile, and the dense model's milliseconds there."""
        if device is None:
            return self.latency_ratio, self.baseline_ms
        return self.latency_ratios.get(device), self.baselines_ms.get(device)

    def to_json(self) -> dict[str, Any]:
        """The trial in plain JSON types."""
        return {**asdict(self), "params": dict(self.params), "history": list(self.history), "unread": list(self.unread)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The trial that `to_json` wrote."""
        return cls(**document)


def devices_of(profile: Profile) -> tuple[str | None, ...]:
    """The devices of a profile by the names that trials tell several apart by; (None,) for a single one."""
    return tuple(each.fingerprint.name for each in profile.devices) or (None,)


@dataclass(frozen=True)
class SweepSpec:
    """What a controller knows of a sweep. Raises `BadInput` naming the field that cannot be right.

    `goal` and `profile` are there for a sweep of pruning trials that names a profile; the Bayesian search then models
    accuracy and latency apart. `maximise` says which way the sweep's metric is better, `engine` what `bayes` searches
    with.
    """

    name: str
    method: str
    parameters: Mapping[str, Any]
    metric: str | None = None
    maximise: bool = False
    run_cap: int | None = None
    goal: Goal | None = None
    profile: Profile | None = None
    early_terminate: Mapping[str, Any] | None = None
    engine: str = DEFAULT_ENGINE
    space: ParameterSpace = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput("method", self.method, checks.choose(self.method, METHODS, "give one of"))
        if self.method == "bayes" and self.metric is None:
            raise BadInput("metric.name", None, "name the metric that bayes should improve")
        object.__setattr__(self, "space", parse(self.parameters))

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any], profile: Profile | None = None) -> Self:
        """The sweep `name` as its file describes it; an `objective` block becomes the goal when there is a `profile`.

        Raises `BadInput` for an unknown method, metric, distribution or objective.
        """
        metric = _block("metric", config.get("metric"))
        direction = metric.get("goal", "minimize")
        if direction not in ("minimize", "maximize"):
            raise BadInput("metric.goal", direction, "give minimize or maximize")
        parameters = _block("parameters", config.get("parameters"))
        goal = _goal(parameters) if profile is not None else None
        if profile is not None:
            _check_fit(profile, goal, parameters)
        return cls(
            name=name,
            method=str(config.get("method", "")),
            parameters=parameters,
            metric=metric.get("name"),
            maximise=direction == "maximize",
            run_cap=run_cap(config.get("run_cap")),
            goal=goal,
            profile=profile,
            early_terminate=config.get("early_terminate"),
            engine=_engine(config, parameters),
        )

    def seed(self, count: int) -> int:
        """The seed of the suggestion that follows `count` trials: the same in any process."""
        digest = hashlib.blake2b(f"{self.name}/{count}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big")


@dataclass(frozen=True)
class Suggestion:
    """The next run: `params` by leaf name, its whole nested `config` with constants, and `why` it was chosen.

    `repeat` tells how many trials of the same candidate there were: above 0 it is measured again, on purpose.
    """

    params: Mapping[str, Any]
    config: Mapping[str, Any]
    why: Mapping[str, Any]
    repeat: int = 0


@dataclass(frozen=True)
class Exhausted:
    """Nothing is left to try; `reason` says so in a sentence."""

    reason: str


class Controller(Protocol):
    """Chooses the next run of a sweep from its stored trials."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """The next run, or word that nothing is left.

        `trials` are all runs of the sweep, oldest first, whatever became of them. Does not look at `run_cap`.
        Raises `BadInput` when the method cannot search these parameters.
        """
        ...


def suggest_many(
    controller: Controller, sweep: SweepSpec, trials: Sequence[StoredTrial], count: int
) -> list[Suggestion | Exhausted]:
    """Up to `count` suggestions in a row, each knowing the earlier ones as pending; ends with the first `Exhausted`."""
    seen, answers = list(trials), list[Suggestion | Exhausted]()
    while len(answers) < count:
        if sweep.run_cap is not None and sum(not trial.prior for trial in seen) >= sweep.run_cap:
            return [*answers, Exhausted(f"run_cap of {sweep.run_cap} runs is reached")]
        answer = controller.suggest(sweep, seen, sweep.seed(len(seen)))
        answers.append(answer)
        if isinstance(answer, Exhausted):
            break
        seen.append(StoredTrial(name=f"ahead-{len(seen)}", params=answer.params, state="pending"))
    return answers


def _engine(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """The engine that a sweep of pruning trials names; other programs may have a parameter of that name themselves.

    Raises `BadInput` for a word that is none, or beside another method.
    """
    if config.get("program") != PROGRAM:
        return DEFAULT_ENGINE
    engine = engine_of(parameters)
    if "engine" in parameters and config.get("method") != "bayes":
        raise BadInput("parameters.engine", engine, "leave it out, or write `method: bayes`")
    return engine


def _goal(parameters: Mapping[str, Any]) -> Goal | None:
    block = parameters.get("objective")
    if not isinstance(block, Mapping) or "parameters" not in block:
        return None
    known = {each.name for each in fields(Goal)}
    values = {
        name: setting.get("value") for name, setting in block["parameters"].items() if isinstance(setting, Mapping)
    }
    for name, setting in block["parameters"].items():
        if name in known and (not isinstance(setting, Mapping) or "value" not in setting):
            raise BadInput(
                f"parameters.objective.{name}", setting, "give one constant `value`; a sweep has one objective"
            )
    return Goal.from_parameters(values)


def _check_fit(profile: Profile, goal: Goal | None, parameters: Mapping[str, Any]) -> None:
    """Raises `BadInput` for a profile of another metric, precision, dense network or devices than the sweep's."""
    measure = _block("parameters.measure", parameters.get("measure")).get("parameters")
    measure = _block("parameters.measure", measure)
    wanted = {
        "metric": (None if goal is None else goal.metric, profile.metric),
        "precision": (_constant(measure, "precision"), profile.precision),
        "baseline_hash": (_constant(parameters, "baseline"), profile.baseline_hash),
        "fingerprint": (_devices(measure), _together(each.name for each in profile.fingerprints)),
    }
    for name, (value, got) in wanted.items():
        if value is not None and got is not None and value != got:
            raise BadInput(f"profile.{name}", got, f"make a profile for {value} with `prunefleet plan`")


def _devices(measure: Mapping[str, Any]) -> str | None:
    told = _constant(measure, "device")
    return None if told is None else _together(device_names("parameters.measure.device", told))


def _together(names: Iterable[str]) -> str | None:
    """Names of devices as one text, the same one in whatever order they come; None without any."""
    return " and ".join(sorted(names)) or None


def _constant(block: Mapping[str, Any], name: str) -> object:
    setting = block.get(name)
    return setting.get("value") if isinstance(setting, Mapping) else None


def run_cap(value: object) -> int | None:
    """A sweep's `run_cap`. Raises `BadInput`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput("run_cap", value, "give a whole number of at least 1")
    return value


def _block(name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput(name, value, "give a mapping")
    return value


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON has whole numbers of any length
        return None
