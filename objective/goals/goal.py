"""What a sweep is after: the ``objective`` block of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain


class Kind(StrEnum):
    """The objectives on offer; ``docs/objective.md`` shows what each one prefers."""

    FASTEST = "fastest"
    MOST_ACCURATE = "most_accurate"
    TRADEOFF = "tradeoff"
    PARETO = "pareto"


@dataclass(frozen=True)
class Goal(Plain):
    """What a sweep is after.

    Args:
        kind: ``fastest`` (least latency ratio losing at most ``max_drop``), ``most_accurate`` (best metric within
            ``max_latency_ratio`` or ``max_latency_ms`` or both), ``tradeoff`` (metric × ratio^weight) or ``pareto``.
        metric: the quality metric's name, for example ``top1``.
        max_drop: the largest loss against the dense model, as a fraction: 0.01 is one point.
        max_latency_ratio: the largest latency as a share of the dense model's.
        max_latency_ms: the largest median latency in milliseconds.
        weight: the exponent of ``tradeoff``, below 0: −0.07 pays 5 % of the metric for a halved latency.
        devices: names of the devices measured; the worst counts.

    Raises:
        BadInput: an unknown kind, a missing limit, or a limit that is not finite or out of range.
    """

    kind: str = Kind.FASTEST.value
    metric: str = "top1"
    max_drop: float | None = 0.01
    max_latency_ratio: float | None = None
    max_latency_ms: float | None = None
    weight: float = -0.07
    devices: tuple[str, ...] = ("local",)

    def __post_init__(self) -> None:
        if self.kind not in list(Kind):
            raise BadInput("objective.kind", self.kind, checks.choose(self.kind, Kind, "give one of"))
        object.__setattr__(self, "kind", str(self.kind))
        object.__setattr__(self, "devices", tuple(self.devices))
        checks.name("objective.metric", self.metric)
        self._check_limits()
        if checks.number("objective.weight", self.weight) >= 0:
            raise BadInput("objective.weight", self.weight, "give a number below 0, for example -0.07")
        if not self.devices:
            raise BadInput("measure.device", self.devices, "name at least one device, for example local")

    def _check_limits(self) -> None:
        if self.max_drop is not None and checks.number("objective.max_drop", self.max_drop, low=0) >= 1:
            raise BadInput("objective.max_drop", self.max_drop, "give a fraction below 1; 0.01 is one point")
        for field in ("max_latency_ratio", "max_latency_ms"):
            if getattr(self, field) is not None:
                checks.positive(f"objective.{field}", getattr(self, field))
        if self.kind == Kind.FASTEST and self.max_drop is None:
            raise BadInput("objective.max_drop", None, "give the largest drop for kind fastest, for example 0.01")
        if self.kind == Kind.MOST_ACCURATE and self.max_latency_ratio is None and self.max_latency_ms is None:
            raise BadInput("objective.max_latency_ratio", None, "give it or max_latency_ms for kind most_accurate")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Goal:
        """Read the plain values of a sweep's ``objective`` block, as they stand in a run's config.

        Limits that the kind does not read may stay in the block: a changed ``kind`` is then a changed word.

        Raises:
            BadInput: an unknown key or kind, a missing limit, or a limit that is not finite or out of range.
        """
        block = dict(checks.mapping("objective", parameters))
        known = [field.name for field in fields(cls)]
        for key in block:
            if key not in known:
                raise BadInput(f"objective.{key}", block[key], checks.choose(key, known, "remove it; known are"))
        if "devices" in block:
            block["devices"] = _names(block["devices"])
        return cls(**block)  # type: ignore[arg-type]


def _names(devices: object) -> tuple[str, ...]:
    if isinstance(devices, str):
        return (devices,)
    if isinstance(devices, Sequence):
        return tuple(checks.text("objective.devices", device) for device in devices)
    raise BadInput("objective.devices", devices, "give a device's name or a list of them")
