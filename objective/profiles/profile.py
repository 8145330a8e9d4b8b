"""What is known before the first trial: sensitivity and latency of each group alone, and points worth starting from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunefleet.objective import checks
from prunefleet.objective.devices import HARDWARE, LOCAL
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.plain import Plain
from prunefleet.objective.profiles.space import GroupSpec, Space
from prunefleet.objective.profiles.warm_points import warm_start
from prunefleet.objective.trial import Device

VERSION = 1


@dataclass(frozen=True)
class Curve(Plain):
    """One group pruned alone: for each count in ``kept`` the validation metric after batch-norm re-estimation, without
    fine-tuning, and the latency ratio to the dense model. All three have one length; ``kept`` ascends.
    """

    group: str
    kept: tuple[int, ...]
    metric: tuple[float, ...]
    latency_ratio: tuple[float, ...]

    def __post_init__(self) -> None:
        checks.name("curve.group", self.group)
        lengths = {len(self.kept), len(self.metric), len(self.latency_ratio)}
        if len(lengths) != 1 or not self.kept:
            raise BadInput(f"curve.{self.group}", sorted(lengths), "give as many metrics and latencies as kept counts")
        if list(self.kept) != sorted(set(self.kept)):
            raise BadInput(f"curve.{self.group}.kept", self.kept, "give each kept count once, ascending")
        for value in self.metric:
            checks.number(f"curve.{self.group}.metric", value, low=0, high=1)
        for value in self.latency_ratio:
            checks.positive(f"curve.{self.group}.latency_ratio", value)

    def points(self) -> dict[int, tuple[float, float]]:
        """Return (metric, latency ratio) by kept channels."""
        pairs = zip(self.metric, self.latency_ratio, strict=True)
        return dict(zip(self.kept, pairs, strict=True))


@dataclass(frozen=True)
class DeviceLatencies(Plain):
    """What one of several devices took: untrained networks as (kept channels by group, latency ratio), the groups
    pruned alone among them; ``fingerprint`` says which device of the fleet it was.
    """

    fingerprint: Device
    latencies: tuple[tuple[Mapping[str, int], float], ...]


@dataclass(frozen=True)
class Profile(Plain):
    """A profile of one trained network at one precision, on one device or on several of which the slowest counts.

    ``latencies`` are further untrained networks, as (kept channels by group, latency ratio); ``warm`` are pruning
    ratios by group, to be tried first and in this order: dense, aligned uniform, greedy from the curves; ``made`` is an
    ISO time; ``fingerprint`` says which device of the fleet it was. Where there are several, ``devices`` has what each
    took, ``fingerprint`` is None, and every other latency ratio is the largest of theirs.
    """

    task: str
    network_hash: str
    baseline_hash: str
    device: str
    precision: str
    groups: tuple[GroupSpec, ...]
    metric: str
    dense_metric: float
    curves: tuple[Curve, ...]
    latencies: tuple[tuple[Mapping[str, int], float], ...] = ()
    warm: tuple[Mapping[str, float], ...] = ()
    made: str = ""
    version: int = VERSION
    fingerprint: Device | None = None
    devices: tuple[DeviceLatencies, ...] = ()

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise BadInput("profile.version", self.version, f"make the profile anew: this release reads {VERSION}")
        for field in ("task", "network_hash", "baseline_hash", "device", "precision"):
            checks.text(f"profile.{field}", getattr(self, field))
        checks.name("profile.metric", self.metric)
        checks.number("profile.dense_metric", self.dense_metric, low=0, high=1)
        self._check_groups()

    def _check_groups(self) -> None:
        space = self.space
        for curve in self.curves:
            space.ratios({curve.group: curve.kept[-1]})
        for kept, ratio in (*self.latencies, *(pair for each in self.devices for pair in each.latencies)):
            space.ratios(kept)
            checks.positive("profile.latencies", ratio)
        for ratios in self.warm:
            space.kept(ratios)

    @property
    def space(self) -> Space:
        """The whole search space of the network on this device."""
        return Space(self.groups)

    @property
    def fingerprints(self) -> tuple[Device, ...]:
        """The devices it was measured on; none where an old one does not say."""
        one = (self.fingerprint,) if self.fingerprint else ()
        return tuple(each.fingerprint for each in self.devices) or one

    def refuse_other(self, *devices: Device) -> None:
        """Raise :class:`BadInput` where trials that are measured on ``devices`` cannot go by this profile."""
        mine = {each.name: each for each in self.fingerprints}
        if not mine:
            return
        same = all(device.name in mine and _same(mine[device.name], device) for device in devices)
        if not same or len(mine) != len(devices):
            elsewhere = "" if [each.name for each in devices] == [LOCAL] else f" --measure-on {_names(devices)}"
            remedy = f"trials are measured on {_told(devices)}: make a profile of it with `prunefleet plan{elsewhere}`"
            raise BadInput("profile", f"measured on {_told(self.fingerprints)}", remedy)

    def save(self, path: Path) -> None:
        """Write the profile as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile from JSON.

        Raises:
            BadInput: the file is not JSON, or not a profile of this version.
        """
        return cls.loads(path.read_text(), str(path))

    @classmethod
    def loads(cls, text: str, name: str = "profile") -> Profile:
        """Read a profile from a JSON text; ``name`` says in messages where it came from."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(name, error.msg, "give a profile made by `prunefleet plan`") from None
        return cls.from_json(document)


def _same(mine: Device, other: Device) -> bool:
    return mine.name == LOCAL or all(getattr(mine, name) == getattr(other, name) for name in HARDWARE)


def _names(devices: Sequence[Device]) -> str:
    return ",".join(each.name for each in devices)


def _told(devices: Sequence[Device]) -> str:
    return " and ".join(f"{each.name} ({each.kind}, {each.cpu})" for each in devices)


def warm_points(profile: Profile, goal: Goal) -> tuple[dict[str, float], ...]:
    """Return the points to try first, as ratios: dense, three aligned uniform, four greedy from the curves.

    All are distinct in kept channels; fewer where the space has fewer.
    """
    curves = {curve.group: curve.points() for curve in profile.curves}
    return tuple(profile.space.ratios(kept) for kept in warm_start(profile.space, profile.dense_metric, curves, goal))
