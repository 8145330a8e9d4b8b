"""A candidate's latencies: on this host before it is trained, on devices elsewhere while the training begins.

Latency does not depend on trained weights, so the network is exported as it was pruned, and a candidate that is too
slow to win need not be trained to the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import CANDIDATE, MeasurementSession, MeasurementSetup
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.pace import in_its_usual_state
from prunefleet.agent.measure.samples import FILE as SAMPLES
from prunefleet.agent.measure.samples import write_samples
from prunefleet.agent.tasks import baseline as dense
from prunefleet.agent.trial.context import TrialContext, version_of
from prunefleet.agent.trial.places import MeasuringPlace
from prunefleet.agent.trial.stage_cache import Left, Stages, bytes_of
from prunefleet.objective.goals.score import bound, hopeless, values_on_all
from prunefleet.objective.sweepfile import F32
from prunefleet.objective.trial import Latency, worst

DENSE_F32 = "dense_f32"
AGAIN = 1_000_003  # between the seeds of a candidate's measurement sessions


@dataclass
class CandidateLatency:
    """The latencies of a network that is not trained yet, as it would ship, against the dense one's.

    Samples come to `folder`. Energy is part of it where the sweep asks for it and the device can tell.
    """

    network: nn.Module
    context: TrialContext
    seed: int
    folder: Path
    watch: StageWatch
    stages: Stages
    bound: float | None = None
    incumbent: float | None = None
    _known: dict[str, Latency] = field(default_factory=dict)

    def begin(self) -> None:
        """Recall what was measured before, ask devices elsewhere, then measure on this host."""
        for place in self.context.places:
            if left := self.stages.recall("measure", *_depends_on(self.context, place)):
                self._known[place.device.name] = _recalled(left, self.folder / self.context.samples(place))
        for place in self._missing:
            if place.elsewhere:
                models, setup = self._models, self._setup(place)
                with self.watch.during("measure"):
                    place.elsewhere.ahead(models, self.context.reference, setup)
        self._measure(lambda place: place.elsewhere is None)

    @property
    def per_device(self) -> tuple[Latency, ...]:
        """One for each device, waited for. Raises `TrialFailed` where a device fails or does not answer."""
        self._measure(lambda place: True)
        return tuple(self._known[place.device.name] for place in self.context.places)

    def hopeful(self) -> bool:
        """Whether, at the fastest that the latencies may really be, it could still beat the sweep's best so far.

        `bound` and `incumbent` say why not. Asked of the server once, when all latencies are known.
        """
        latencies = self.per_device
        if self.bound is None:
            self.incumbent = self.watch.incumbent() if self.context.skip else None
            self.bound = min(self._bound(each) for each in latencies)
        return self.incumbent is None or not hopeless(self.bound, self.incumbent, self.context.goal)

    @property
    def known(self) -> bool:
        """Whether nothing is waited for any more."""
        return not self._missing

    def row(self) -> dict[str, float]:
        """The latency ratio for a row of the history; nothing while it is waited for."""
        return {"latency_ratio": worst(self.per_device).ratio} if self.known else {}

    def scored(self, metric: float) -> dict[str, float]:
        """The score that a network of this metric would come to, for early termination."""
        timed = [(each.ratio, each.baseline_p50_ms) for each in self.per_device]
        return {"score": float(values_on_all(metric, self._dense_metric - metric, timed, self.context.goal))}

    def _bound(self, latency: Latency) -> float:
        return bound(latency.ratio_lo, self.context.goal, self._dense_metric, latency.baseline_p50_ms)

    @property
    def _dense_metric(self) -> float:
        return dense.metric(self.context.task, self.context.baseline, self.context.goal.metric)

    @property
    def _missing(self) -> list[MeasuringPlace]:
        return [place for place in self.context.places if place.device.name not in self._known]

    def _measure(self, wanted: Callable[[MeasuringPlace], bool]) -> None:
        for place in filter(wanted, self._missing):
            models = self._models
            with self.watch.during("measure"):
                self._known[place.device.name] = self._measured(place, models)

    @cached_property
    def _models(self) -> dict[str, Exported]:
        """Return the candidate's network, exported once before training, and the dense one at f32 where that differs.

        People who deploy the dense network at f32 today want that ratio too. It is left out where the ratio is to that
        network anyhow.
        """
        with self.watch.during("export"):
            untrained = self.context.deploy(self.network, self.folder, "untrained", rough=True)
        beside = {} if F32 in (self.context.precision, self.context.against) else {DENSE_F32: self.context.dense_f32}
        return {CANDIDATE: untrained, **beside}

    def _setup(self, place: MeasuringPlace, before: int = 0) -> MeasurementSetup:
        """Return how a place measures those; after `before` sessions the rounds run in another order."""
        return MeasurementSetup(
            runner=place.at(self.context.reference.precision).runner,
            runners={CANDIDATE: place.runner, DENSE_F32: place.at(F32).runner},
            device=place.device,
            meter=place.meter,
            time_limit_s=self.context.seconds_to_measure,
            seed=self.seed + AGAIN * before,
        )

    def _measured(self, place: MeasuringPlace, models: dict[str, Exported]) -> Latency:
        """Measured at one place, samples written, both remembered."""
        samples = self.folder / self.context.samples(place)

        def measure(before: int) -> MeasurementSession:
            session = place.measure(models, self.context.reference, self._setup(place, before))
            return _with_precision(session, self.context)

        settings = (self.context.baseline.sha256, *deployment(self.context, place), self.context.against)
        session = in_its_usual_state(measure, *settings)
        write_samples(session, samples)
        about, value = _depends_on(self.context, place), session.latency.to_json()
        self.stages.keep("measure", *about, value=value, arrays=bytes_of({SAMPLES: samples}))
        return session.latency


def _recalled(left: Left, samples: Path) -> Latency:
    samples.write_bytes(left.arrays[SAMPLES].numpy().tobytes())
    return Latency.from_json(left.value)


def _with_precision(session: MeasurementSession, context: TrialContext) -> MeasurementSession:
    """A session whose candidate says the precision that it ships at, and its ratio to the dense network at f32."""
    latency, beside = session.latency, session.latencies.get(DENSE_F32)
    precision = "int8" if context.precision == "int8" else latency.precision
    changed = replace(latency, precision=precision, ratio_f32=latency.ratio / beside.ratio if beside else None)
    return replace(session, latencies={**session.latencies, CANDIDATE: changed})


def deployment(context: TrialContext, place: MeasuringPlace) -> tuple[object, ...]:
    """What the deployed network and its latency depend on besides its channels and weights."""
    maker, runner = version_of("nncf") if context.precision == "int8" else "", place.runner
    return (
        context.precision,
        runner.device,
        runner.precision,
        sorted(runner.settings().items()),
        maker,
        _identity(place),
    )


def _depends_on(context: TrialContext, place: MeasuringPlace) -> tuple[object, ...]:
    """What a latency depends on besides its channels and the dense network."""
    energy = place.meter and place.meter.source
    return *deployment(context, place), context.against, context.seconds_to_measure, energy


def _identity(place: MeasuringPlace) -> object:
    return sorted(place.device.to_json().items())
