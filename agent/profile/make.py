"""`prunefleet plan`: what pruning each group costs in quality and saves in time, measured before the first trial.

Each group is pruned alone to the levels of the channel grid: the metric after batch-norm re-estimation, and the latency
ratio. Some mixed candidates, untrained, add latencies for the controller's model of the device. docs/plan.md has more.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from torch import nn

from prunefleet.agent.compress.groups import specs
from prunefleet.agent.compress.merge import MergedSpace, merge
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.measure.device import common_step
from prunefleet.agent.profile.measured import Measurements, Report
from prunefleet.agent.profile.points import Effort, Kept, name_of, points
from prunefleet.agent.tasks.task import Task, data_hash, digest, task_hash
from prunefleet.agent.trial.places import MeasuringPlace
from prunefleet.agent.trial.proven import survey_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, DeviceLatencies, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec, Space


class Dense(Protocol):
    """The dense model: its network, and the SHA-256 of its weights file."""

    @property
    def network(self) -> nn.Module:
        """The trained network."""

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


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
    groups = survey_of(task, baseline.network, baseline.sha256).groups
    step = common_step([place.device for place in places], precision)
    merged = MergedSpace(specs(groups, step), dimensions=merge(groups))
    space = merged.searched
    key = _key(task, baseline, places, precision, goal, merged, effort)
    with Journal(cache / "profiles" / f"{key[:16]}.jsonl") as journal:
        measurements = Measurements(
            task, baseline.network, groups, merged, goal.metric, journal, places, precision, effort
        )
        measurements.run(points(space, effort), report or (lambda done, total, text: None))
        profile = _profile(task, baseline, precision, goal, space, measurements)
    return replace(profile, warm=warm_points(profile, goal))


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


def _profile(
    task: Task, baseline: Dense, precision: str, goal: Goal, space: Space, measurements: Measurements
) -> Profile:
    """Return what the journal holds, as a profile without warm points."""
    done = [(group, kept) for group, kept in points(space, measurements.effort) if measurements.timed(kept)]
    devices = [place.device for place in measurements.places]
    several = [
        DeviceLatencies(place.device, tuple((kept, measurements.ratio(place, kept)) for _, kept in done))
        for place in measurements.places
    ]
    return Profile(
        task=task.name,
        network_hash=network_hash(baseline.network),
        baseline_hash=baseline.sha256,
        device=" and ".join(f"{device.kind} ({device.cpu})" for device in devices),
        precision=precision,
        groups=space.groups,
        metric=goal.metric,
        dense_metric=measurements.dense_metric(),
        curves=tuple(
            _curve(spec, [kept for group, kept in done if group == spec.name], measurements) for spec in space.groups
        ),
        latencies=tuple((kept, measurements.worst(kept)) for _, kept in done),
        warm=(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=devices[0] if len(devices) == 1 else None,
        devices=tuple(several) if len(devices) > 1 else (),
    )


def _curve(spec: GroupSpec, measured: Sequence[Kept], measurements: Measurements) -> Curve:
    """One group's curve, up to its whole width, where it is the dense model."""
    return Curve(
        group=spec.name,
        kept=(*(kept[spec.name] for kept in measured), spec.width),
        metric=(
            *(float(measurements.journal[f"metric {name_of(kept)}"]) for kept in measured),
            measurements.dense_metric(),
        ),
        latency_ratio=(*(measurements.worst(kept) for kept in measured), 1.0),
    )
