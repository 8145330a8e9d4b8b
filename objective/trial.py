"""What a trial is: a candidate, what was measured of it, what it is worth, or why it failed.

All values are frozen, validated where they are built (:class:`BadInput` names the field) and travel as JSON both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain

IMPORTANCES = ("l2", "l1", "fpgm", "bn_scale", "taylor", "random")
RANKINGS = ("group", "filter", "channel")


@dataclass(frozen=True)
class Candidate(Plain):
    """What one trial tries.

    ``ratios`` is the pruning ratio per layer group, in [0, 1), a missing group stays whole; ``precision`` is the
    one both candidate and dense model are measured at; ``epochs`` is the length of fine-tuning; the channels of least
    ``importance`` go, ranked by producers' filters, consumers' channels or both (``ranking``).
    """

    ratios: Mapping[str, float]
    precision: str = "f32"
    epochs: float = 1.0
    seed: int = 0
    importance: str = "l2"
    ranking: str = "group"

    def __post_init__(self) -> None:
        ratios = {
            checks.name("ratio", group): checks.ratio(f"ratio.{group}", value) for group, value in self.ratios.items()
        }
        object.__setattr__(self, "ratios", ratios)
        checks.name("precision", self.precision)
        checks.number("epochs", self.epochs, low=0)
        checks.whole("seed", self.seed)
        checks.one_of("recipe.importance", self.importance, IMPORTANCES)
        checks.one_of("recipe.ranking", self.ranking, RANKINGS)


@dataclass(frozen=True)
class Device(Plain):
    """Where a latency was measured: what the device is, the host that holds it, and the versions that ran.

    ``channel_steps`` are the steps in which its channels pay, by precision; a device elsewhere in the fleet tells them.
    """

    name: str
    kind: str
    host: str
    cpu: str
    cores: int
    memory_gb: float
    os: str
    versions: Mapping[str, str]
    accelerator: str | None = None
    channel_steps: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.text("device.name", self.name)
        checks.text("device.kind", self.kind)
        checks.text("device.host", self.host)
        checks.whole("device.cores", self.cores, low=1)
        checks.positive("device.memory_gb", self.memory_gb)
        object.__setattr__(self, "versions", dict(self.versions))
        steps = {
            name: checks.whole(f"device.channel_steps.{name}", each, 1) for name, each in self.channel_steps.items()
        }
        object.__setattr__(self, "channel_steps", steps)


@dataclass(frozen=True)
class Accuracy(Plain):
    """The quality metric as fractions from 0 to 1: ``val`` guides, ``holdout`` checks the guide, ``test`` is read once.

    ``pruned`` is the validation metric right after pruning, ``recalibrated`` after batch-norm re-estimation, and
    ``trained`` after fine-tuning, in f32; given where the network is deployed, and evaluated, at another precision.
    """

    metric: str
    val: float
    holdout: float | None = None
    test: float | None = None
    pruned: float | None = None
    recalibrated: float | None = None
    trained: float | None = None

    def __post_init__(self) -> None:
        checks.name("metric", self.metric)
        for split in ("val", "holdout", "test", "pruned", "recalibrated", "trained"):
            value = getattr(self, split)
            if value is not None or split == "val":
                checks.number(f"{split}_{self.metric}", value, low=0, high=1)


@dataclass(frozen=True)
class Conditions(Plain):
    """The host at one moment, each None where it cannot be read.

    ``load`` is the load average of the last minute, ``cpu_mhz`` the mean clock of its cores, ``celsius`` the
    processor's temperature.
    """

    load: float | None = None
    cpu_mhz: float | None = None
    celsius: float | None = None

    def __post_init__(self) -> None:
        for name in ("load", "cpu_mhz"):
            if getattr(self, name) is not None:
                checks.number(f"conditions.{name}", getattr(self, name), low=0)
        if self.celsius is not None:
            checks.number("conditions.celsius", self.celsius)


@dataclass(frozen=True)
class Energy(Plain):
    """Millijoules of one inference, the candidate's and the dense model's, both read from one ``source``."""

    mj: float
    baseline_mj: float
    source: str

    def __post_init__(self) -> None:
        checks.number("energy_mj", self.mj, low=0)
        checks.number("baseline_energy_mj", self.baseline_mj, low=0)
        checks.name("energy_source", self.source)


@dataclass(frozen=True)
class Latency(Plain):
    """One inference's latency on one device, interleaved with the dense model at the same precision.

    ``ratio`` is the candidate's 10th percentile over the dense model's, with its 95 % interval; ``*_ms`` are
    milliseconds of one inference; ``n`` is the number of slots; ``noisy`` says that the dense model drifted meanwhile.
    ``ratio_f32`` is the ratio to the dense model at f32 in the same session, given where ``ratio`` is to another one.
    ``settings`` say how it was run (runner, streams, threads), ``before`` and ``after`` how the host was; ``energy`` is
    None where the host cannot tell.
    """

    device: Device
    precision: str
    ratio: float
    ratio_lo: float
    ratio_hi: float
    p10_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    baseline_p10_ms: float
    baseline_p50_ms: float
    throughput_fps: float
    n: int
    noisy: bool = False
    ratio_f32: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    before: Conditions | None = None
    after: Conditions | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        for name in ("ratio", "ratio_lo", "ratio_hi"):
            checks.positive(f"latency_{name}", getattr(self, name))
        for name in ("p10_ms", "p50_ms", "p90_ms", "p99_ms", "baseline_p10_ms", "baseline_p50_ms"):
            checks.positive(name if name.startswith("baseline") else f"latency_{name}", getattr(self, name))
        checks.number("throughput_fps", self.throughput_fps, low=0)
        if self.ratio_f32 is not None:
            checks.positive("latency_ratio_f32", self.ratio_f32)
        checks.whole("latency_n", self.n, low=1)
        if self.ratio_lo > self.ratio_hi:
            raise BadInput("latency_ratio_lo", self.ratio_lo, f"give at most latency_ratio_hi, {self.ratio_hi}")
        if not self.p10_ms <= self.p50_ms <= self.p90_ms <= self.p99_ms:
            shown = (self.p10_ms, self.p50_ms, self.p90_ms, self.p99_ms)
            raise BadInput("latency_p10_ms to latency_p99_ms", shown, "give percentiles in rising order")


def worst(latencies: Sequence[Latency]) -> Latency:
    """The latency that counts where a sweep names several devices: the one with the largest ratio."""
    return max(latencies, key=lambda latency: latency.ratio)


@dataclass(frozen=True)
class Measurement(Plain):
    """All that was measured of one candidate: ``kept`` channels by group, quality, latency on one or more devices.

    ``metric_drop`` is the dense model's validation metric minus the candidate's (negative where pruning helped);
    ``macs`` are multiply-accumulates of one inference; ``size_bytes`` is the exported model's.
    """

    candidate: Candidate
    kept: Mapping[str, int]
    accuracy: Accuracy
    metric_drop: float
    latencies: tuple[Latency, ...]
    params: int
    macs: int
    size_bytes: int

    def __post_init__(self) -> None:
        kept = {group: checks.whole(f"kept.{group}", count, low=1) for group, count in self.kept.items()}
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "latencies", tuple(self.latencies))
        checks.number("metric_drop", self.metric_drop, low=-1, high=1)
        if not self.latencies:
            raise BadInput("latencies", self.latencies, "give the latency on at least one device")
        for name in ("params", "macs", "size_bytes"):
            checks.whole(name, getattr(self, name))

    @property
    def worst(self) -> Latency:
        """The latency that counts."""
        return worst(self.latencies)


@dataclass(frozen=True)
class Skipped(Plain):
    """A trial that ended before training: no network as slow can score above ``bound``, and ``incumbent`` is reached.

    It has no accuracy: only its channels, its size and its latency on one or more devices are known.
    """

    candidate: Candidate
    kept: Mapping[str, int]
    latencies: tuple[Latency, ...]
    bound: float
    incumbent: float
    params: int
    macs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", dict(self.kept))
        object.__setattr__(self, "latencies", tuple(self.latencies))
        if not checks.number("score_bound", self.bound) < checks.number("incumbent", self.incumbent):
            raise BadInput("score_bound", self.bound, f"give less than the incumbent's score, {self.incumbent}")

    @property
    def worst(self) -> Latency:
        """The latency that counts."""
        return worst(self.latencies)


@dataclass(frozen=True)
class Score(Plain):
    """What a measurement is worth to a goal, larger is better; ``terms`` say where the value comes from."""

    value: float
    feasible: bool
    terms: Mapping[str, float]

    def __post_init__(self) -> None:
        checks.number("score", self.value)
        terms = {key: checks.number(f"score_terms.{key}", value) for key, value in self.terms.items()}
        object.__setattr__(self, "terms", terms)


class Outcome(StrEnum):
    """How a trial ended, as its summary says it."""

    SCORED = "scored"
    SKIPPED = "skipped"
    INFEASIBLE = "infeasible"
    DIVERGED = "diverged"
    KEPT_FAILING = "kept_failing"


class FailureKind(StrEnum):
    """Why a trial failed. A candidate's failures teach the controller; a host's are tried again and teach nothing."""

    INFEASIBLE = "infeasible"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    DEVICE = "device"
    DATA = "data"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    SERVER = "server"
    UNKNOWN = "unknown"

    @property
    def blames_host(self) -> bool:
        """Whether the host, not the candidate, is at fault."""
        return self not in (FailureKind.INFEASIBLE, FailureKind.DIVERGED)


@dataclass(frozen=True)
class Failure(Plain):
    """A trial without a measurement: what went wrong, at which stage, in one line."""

    kind: FailureKind
    stage: str
    message: str

    def __post_init__(self) -> None:
        checks.text("failure_stage", self.stage)
        object.__setattr__(self, "kind", FailureKind(self.kind))
        object.__setattr__(self, "message", " ".join(self.message.split()))

    @property
    def teaches(self) -> bool:
        """Whether the controller may learn from it."""
        return not self.kind.blames_host


class TrialFailed(Exception):
    """Raised inside a stage to end the trial with a failure; ``failure`` is the value that is reported."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.stage}: {self.failure.kind.value}: {self.failure.message}"
