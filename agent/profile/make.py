"""`prunefleet plan`: what pruning each group costs in quality and saves in time, measured before the first trial.

Each group is pruned alone to the levels of the channel grid: the metric after batch-norm re-estimation, and the latency
ratio. Some mixed candidates, untrained, add latencies for the controller's model of the device. docs/plan.md has more.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from prunefleet.agent.compress.groups import Group, find_groups, specs
from prunefleet.agent.compress.merge import MergedSpace, merge
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.measure.benchmark import DENSE, MeasurementSetup
from prunefleet.agent.measure.device import common_step
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.tasks.task import Task, data_hash, digest, task_hash
from prunefleet.agent.tasks.training import recalibrate
from prunefleet.agent.trial.context import deploy
from prunefleet.agent.trial.places import MeasuringPlace
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, DeviceLatencies, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec, Space
from prunefleet.objective.sweepfile import F32, block, choices

Kept = dict[str, int]
Report = Callable[[int, int, str], None]
"""Called with points done, points in all, and what was done last."""
TIMED, LEAST_MIXED = 400, 250
"""Networks whose latencies a plan measures, and how many of them are mixed candidates at the least."""


class Dense(Protocol):
    """The dense model: its network, and the SHA-256 of its weights file."""

    @property
    def network(self) -> nn.Module:
        """The trained network."""

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


@dataclass(frozen=True)
class Effort:
    """How much `make_profile` measures.

    `examples` of validation per point; at most `levels` per group; `mixed` extra candidates (None: see `mixed_beside`),
    for which no new session begins after `seconds`; `together` networks are measured at once, for `session_s` seconds
    at most, `mixed_s` where all are mixed: a model of the device takes many of them together, a curve takes each as it
    is.
    """

    examples: int = 2500
    levels: int = 7
    mixed: int | None = None
    seconds: float = 480.0
    together: int = 12
    session_s: float = 6.0
    mixed_s: float = 2.0
    seed: int = 0

    def mixed_beside(self, alone: int) -> int:
        """How many mixed candidates are timed beside so many networks of which one group is pruned."""
        return max(TIMED - alone, LEAST_MIXED) if self.mixed is None else self.mixed


def make_profile(
    task: Task,
    baseline: Dense,
    places: Sequence[MeasuringPlace],
    precision: str,
    goal: Goal,
    cache: Path,
    report: Report | None = None,
    *,
    effort: Effort | None = None,
) -> Profile:
    """Measure a `Profile` of the dense model, latencies at each of the `places`, which have runners at `precision`.

    Finished points in `cache` are not measured again. Raises `BadInput` where the task lacks the goal's metric or the
    network has nothing to prune, `TrialFailed` where the device refuses a network.
    """
    if goal.metric not in task.metrics:
        raise BadInput("objective.metric", goal.metric, f"the task {task.name} gives {', '.join(task.metrics)}")
    effort = effort or Effort()
    groups = find_groups(baseline.network, task.example_input())
    step = common_step([place.device for place in places], precision)
    merged = MergedSpace(specs(groups, step), dimensions=merge(groups))
    space = merged.searched
    key = _key(task, baseline, places, precision, goal, merged, effort)
    with Journal(cache / "profiles" / f"{key[:16]}.jsonl") as journal:
        plan = _Plan(task, baseline.network, groups, merged, goal.metric, journal, places, precision, effort)
        plan.run(points(space, effort), report or (lambda done, total, text: None))
        profile = _profile(task, baseline, precision, goal, space, plan)
    return replace(profile, warm=warm_points(profile, goal))


def points(space: Space, effort: Effort) -> list[tuple[str, Kept]]:
    """What is measured: (group, kept) of each group pruned alone, then ("", kept) of mixed candidates, all distinct."""
    alone = [
        (spec.name, {**space.widths, spec.name: level})
        for spec in space.groups
        for level in _levels(space, spec, effort)
    ]
    seen = {_name(kept) for _, kept in alone} | {_name(space.widths)}
    mixed: list[tuple[str, Kept]] = []
    wanted = effort.mixed_beside(len(alone))
    for kept in _candidates(space, effort.seed, wanted):
        if len(mixed) < wanted and _name(kept) not in seen:
            seen.add(_name(kept))
            mixed.append(("", kept))
    return alone + mixed


def _levels(space: Space, spec: GroupSpec, effort: Effort) -> list[int]:
    """At most `effort.levels` of a group's levels below its width, evenly chosen."""
    below = space.levels(spec.name)[:-1]
    if len(below) <= effort.levels:
        return list(below)
    return [below[index] for index in np.linspace(0, len(below) - 1, effort.levels).round().astype(int)]


def _candidates(space: Space, seed: int, wanted: int) -> Iterator[Kept]:
    """The aligned uniform candidates, then random ones: each group freely, or around one depth, in turn.

    Some repeat others; there are enough for so many as are `wanted`.
    """
    yield from space.uniform_ladder()
    random = np.random.default_rng(seed)
    for turn in range(20 * wanted):
        depth, spread = (0.5, 0.5) if turn % 2 else (random.uniform(0, space.max_ratio), 0.2)
        ratios = np.clip(depth + spread * random.uniform(-1, 1, len(space.groups)), 0, space.max_ratio)
        yield space.kept({spec.name: float(ratio) for spec, ratio in zip(space.groups, ratios, strict=True)})


def _name(kept: Mapping[str, int]) -> str:
    return ",".join(f"{group}={count}" for group, count in sorted(kept.items()))


def _key(
    task: Task,
    baseline: Dense,
    places: Sequence[MeasuringPlace],
    precision: str,
    goal: Goal,
    space: MergedSpace,
    effort: Effort,
) -> str:
    """Hash of all that a finished point depends on: code, data, weights, devices, and how it is measured."""
    runner = places[0].runner
    how = (precision, runner.precision, sorted(runner.settings().items()))
    measured = (how, goal.metric, effort.examples, task_hash(task), data_hash(task), baseline.sha256)
    devices = [repr(sorted(place.device.to_json().items())) for place in places]
    return digest(repr(measured), *devices, repr((space.groups, space.dimensions)))


def network_hash(network: nn.Module) -> str:
    """Hash of a network's layers and shapes, whatever its weights."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return digest(str(network), repr(shapes))


@dataclass
class _Plan:
    """The measuring of one profile."""

    task: Task
    network: nn.Module
    groups: Sequence[Group]
    space: MergedSpace
    metric: str
    journal: Journal
    places: Sequence[MeasuringPlace]
    precision: str
    effort: Effort
    began: float = field(default_factory=time.perf_counter)

    def run(self, todo: Sequence[tuple[str, Kept]], report: Report) -> None:
        """Measure what the journal has not, a session at a time; mixed candidates only while there is time."""
        self.dense_metric()
        open_points = [point for point in todo if not self.timed(point[1])]
        done = len(todo) - len(open_points)
        report(done, len(todo), "dense model evaluated")
        for first in range(0, len(open_points), self.effort.together):
            part = open_points[first : first + self.effort.together]
            if not any(group for group, _ in part) and time.perf_counter() - self.began > self.effort.seconds:
                report(done, done, f"time is over: {len(todo) - done} mixed candidates left out")
                return
            self._measure(part, partial(report, done, len(todo)))
            done += len(part)
            report(done, len(todo), f"{len(part)} networks timed")

    def dense_metric(self) -> float:
        """The dense model's metric under the same treatment as each point's."""
        return self.value(f"metric {DENSE}", lambda: self._quality(copy.deepcopy(self.network)))

    def value(self, key: str, measure: Callable[[], float]) -> float:
        """From the journal, else measured and noted there."""
        if key not in self.journal:
            self.journal.add(key, measure())
        return float(self.journal[key])

    def _quality(self, network: nn.Module) -> float:
        recalibrate(self.task, network)
        return self.task.evaluate(network, "validation", self.effort.examples)[self.metric]

    def _measure(self, part: Sequence[tuple[str, Kept]], note: Callable[[str], None]) -> None:
        """Quality and latency of some networks; devices elsewhere measure while quality is evaluated here."""
        networks = [self._pruned(kept) for _, kept in part]
        with tempfile.TemporaryDirectory() as folder:
            dense = deploy(self.network, self.task, Path(folder), self.precision, DENSE, rough=True)
            models = {
                _name(kept): deploy(network, self.task, Path(folder), self.precision, f"model{place}", rough=True)
                for place, ((_, kept), network) in enumerate(zip(part, networks, strict=True))
            }
            alone = any(group for group, _ in part)
            limit = self.effort.session_s if alone else min(self.effort.session_s, self.effort.mixed_s)
            wanted = {place.device.name: self._untimed(place, models) for place in self.places}

            def setup(place: MeasuringPlace) -> MeasurementSetup:
                return MeasurementSetup(place.runner, place.device, time_limit_s=limit, throughput_s=0.0, loads=1)

            for place in self.places:
                if place.elsewhere and (own := wanted[place.device.name]):
                    place.elsewhere.ahead(own, dense, setup(place))
            for (group, kept), network in zip(part, networks, strict=True):
                self._evaluate(group, kept, network, note)
            for place in self.places:
                if own := wanted[place.device.name]:
                    timed = place.measure(own, dense, setup(place))
                    for name in own:
                        self.journal.add(self._label(place, name), timed.latencies[name].ratio)

    def _untimed(self, place: MeasuringPlace, models: Mapping[str, Exported]) -> dict[str, Exported]:
        """Those of the networks that were not timed there before an interruption."""
        return {name: model for name, model in models.items() if self._label(place, name) not in self.journal}

    def _label(self, place: MeasuringPlace, name: str) -> str:
        """What the journal calls a latency ratio."""
        return f"latency {name}" if len(self.places) == 1 else f"latency {place.device.name} {name}"

    def timed(self, kept: Kept) -> bool:
        """Whether a network was timed at all places."""
        return all(self._label(place, _name(kept)) in self.journal for place in self.places)

    def ratio(self, place: MeasuringPlace, kept: Kept) -> float:
        """The latency ratio of a network that was timed at that place."""
        return float(self.journal[self._label(place, _name(kept))])

    def worst(self, kept: Kept) -> float:
        """The largest latency ratio of a network that was timed at all places."""
        return max(self.ratio(place, kept) for place in self.places)

    def _pruned(self, kept: Kept) -> nn.Module:
        ratios = self.space.searched.ratios(kept)
        return prune(self.network, self.task.example_input(), self.groups, self.space.kept(ratios)).network

    def _evaluate(self, group: str, kept: Kept, network: nn.Module, note: Callable[[str], None]) -> None:
        """The metric of a network whose `group` is pruned alone; others are timed only."""
        if group:
            metric = self.value(f"metric {_name(kept)}", lambda: self._quality(network))
            note(f"{group} {kept[group]} channels: {self.metric} {metric:.3f}")


def _profile(task: Task, baseline: Dense, precision: str, goal: Goal, space: Space, plan: _Plan) -> Profile:
    """What the journal holds, as a profile without warm points."""
    done = [(group, kept) for group, kept in points(space, plan.effort) if plan.timed(kept)]
    devices = [place.device for place in plan.places]
    several = [
        DeviceLatencies(place.device, tuple((kept, plan.ratio(place, kept)) for _, kept in done))
        for place in plan.places
    ]
    return Profile(
        task=task.name,
        network_hash=network_hash(baseline.network),
        baseline_hash=baseline.sha256,
        device=" and ".join(f"{device.kind} ({device.cpu})" for device in devices),
        precision=precision,
        groups=space.groups,
        metric=goal.metric,
        dense_metric=plan.dense_metric(),
        curves=tuple(_curve(spec, [kept for group, kept in done if group == spec.name], plan) for spec in space.groups),
        latencies=tuple((kept, plan.worst(kept)) for _, kept in done),
        warm=(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=devices[0] if len(devices) == 1 else None,
        devices=tuple(several) if len(devices) > 1 else (),
    )


def _curve(spec: GroupSpec, measured: Sequence[Kept], plan: _Plan) -> Curve:
    """One group's curve, up to its whole width, where it is the dense model."""
    return Curve(
        group=spec.name,
        kept=(*(kept[spec.name] for kept in measured), spec.width),
        metric=(*(float(plan.journal[f"metric {_name(kept)}"]) for kept in measured), plan.dense_metric()),
        latency_ratio=(*(plan.worst(kept) for kept in measured), 1.0),
    )


def resolve(
    sweep: Mapping[str, Any],
    profile: Profile,
    reference: str,
    energy: str | None = None,
    data: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """The sweep file with its search space, profile artifact and dense model filled in; all else as the user wrote it.

    `reference`: the profile's artifact, such as "profile-fashion_mnist-cpu-f32:v0". A ratio block of the user's own
    stays as it is; raises `BadInput` where it names a group that the network has not. `energy`: the source that all
    trials are to read, unless the user has named one. `data`: the task's own word for it, which every host's must be.
    `code`: what every host is to run, an artifact's name or a hash.
    Where the precision is searched, ratios are to f32, unless the user says otherwise.
    """
    resolved = copy.deepcopy(dict(sweep))
    space = Space(profile.groups)
    parameters = resolved.setdefault("parameters", {})
    if "ratio" in parameters:
        Space.from_parameters(parameters["ratio"], space.widths, profile.groups[0].step)
    parameters.setdefault("ratio", space.parameters())
    precisions = choices(block(parameters, "measure").get("precision", {"value": F32}))
    added = {"energy": energy} if energy else {}
    if len(precisions) > 1 and F32 in precisions:  # else each would be held against its own dense network alone
        added["against"] = F32
    if added:
        measure = parameters.setdefault("measure", {"parameters": {}})["parameters"]
        for name, value in added.items():
            measure.setdefault(name, {"value": value})
    own = {name: {"value": value} for name, value in (("code", code), ("data", data)) if value}
    for name in ("code", "data"):
        parameters.pop(name, None)
    return resolved | {"parameters": parameters | _constants(profile, reference) | own}


def _constants(profile: Profile, reference: str) -> dict[str, Any]:
    return {"profile": {"value": reference}, "baseline": {"value": profile.baseline_hash}}
