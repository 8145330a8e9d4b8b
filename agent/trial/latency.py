"""A candidate's latencies: on this host before it is trained, on devices elsewhere while the training begins.

Latency does not depend on trained weights, so the network is exported as it was pruned, and a candidate that is too
slow to win need not be trained to the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from prunefleet.agent.host.progress import Watch
from prunefleet.agent.measure.benchmark import CANDIDATE, Sitting
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.pace import in_its_usual_state
from prunefleet.agent.measure.samples import FILE as SAMPLES
from prunefleet.agent.measure.samples import write_samples
from prunefleet.agent.tasks import baseline as dense
from prunefleet.agent.trial.context import Bench, version_of
from prunefleet.agent.trial.places import Place
from prunefleet.agent.trial.stage_cache import Left, Stages, bytes_of
from prunefleet.objective.goals.score import bound, hopeless, values_on_all
from prunefleet.objective.sweepfile import F32
from prunefleet.objective.trial import Latency, worst

DENSE_F32 = "dense_f32"
AGAIN = 1_000_003  # between the seeds of a candidate's sittings


@dataclass
class Timing:
    """The latencies of a network that is not trained yet, as it would ship, against the dense one's.

    Samples come to `folder`. Energy is part of it where the sweep asks for it and the device can tell.
    """

    network: nn.Module
    bench: Bench
    seed: int
    folder: Path
    watch: Watch
    stages: Stages
    bound: float | None = None
    incumbent: float | None = None
    _known: dict[str, Latency] = field(default_factory=dict)

    def begin(self) -> None:
        """Recall what was measured before, ask devices elsewhere, then measure on this host."""
        for place in self.bench.places:
            if left := self.stages.recall("measure", *_sitting(self.bench, place)):
                self._known[place.device.name] = _recalled(left, self.folder / self.bench.samples(place))
        for place in self._missing:
            if place.elsewhere:
                models, how = self._models, self._options(place)
                with self.watch.during("measure"):
                    place.elsewhere.ahead(models, self.bench.reference, **how)
        self._measure(lambda place: place.elsewhere is None)

    @property
    def latencies(self) -> tuple[Latency, ...]:
        """One for each device, waited for. Raises `TrialFailed` where a device fails or does not answer."""
        self._measure(lambda place: True)
        return tuple(self._known[place.device.name] for place in self.bench.places)

    def hopeful(self) -> bool:
        """Whether, at the fastest that the latencies may really be, it could still beat the sweep's best so far.

        `bound` and `incumbent` say why not. Asked of the server once, when all latencies are known.
        """
        latencies = self.latencies
        if self.bound is None:
            self.incumbent = self.watch.incumbent() if self.bench.skip else None
            self.bound = min(self._bound(each) for each in latencies)
        return self.incumbent is None or not hopeless(self.bound, self.incumbent, self.bench.goal)

    @property
    def known(self) -> bool:
        """Whether nothing is waited for any more."""
        return not self._missing

    def row(self) -> dict[str, float]:
        """The latency ratio for a row of the history; nothing while it is waited for."""
        return {"latency_ratio": worst(self.latencies).ratio} if self.known else {}

    def scored(self, metric: float) -> dict[str, float]:
        """The score that a network of this metric would come to, for early termination."""
        timed = [(each.ratio, each.baseline_p50_ms) for each in self.latencies]
        return {"score": float(values_on_all(metric, self._dense_metric - metric, timed, self.bench.goal))}

    def _bound(self, latency: Latency) -> float:
        return bound(latency.ratio_lo, self.bench.goal, self._dense_metric, latency.baseline_p50_ms)

    @property
    def _dense_metric(self) -> float:
        return dense.metric(self.bench.task, self.bench.baseline, self.bench.goal.metric)

    @property
    def _missing(self) -> list[Place]:
        return [place for place in self.bench.places if place.device.name not in self._known]

    def _measure(self, wanted: Callable[[Place], bool]) -> None:
        for place in filter(wanted, self._missing):
            models = self._models
            with self.watch.during("measure"):
                self._known[place.device.name] = self._sat(place, models)

    @cached_property
    def _models(self) -> dict[str, Exported]:
        """At another precision than f32 the dense network at f32 sits beside, for people who deploy that one today.

        Unless the ratio is to that one anyhow. Exported once, before the network is trained.
        """
        with self.watch.during("export"):
            untrained = self.bench.deploy(self.network, self.folder, "untrained", rough=True)
        beside = {} if F32 in (self.bench.precision, self.bench.against) else {DENSE_F32: self.bench.dense_f32}
        return {CANDIDATE: untrained, **beside}

    def _options(self, place: Place) -> dict[str, Any]:
        """How a place measures those."""
        return {
            "runner": place.at(self.bench.reference.precision).runner,
            "runners": {CANDIDATE: place.runner, DENSE_F32: place.at(F32).runner},
            "device": place.device,
            "time_limit_s": self.bench.seconds_to_measure,
            "seed": self.seed,
            "meter": place.meter,
        }

    def _sat(self, place: Place, models: dict[str, Exported]) -> Latency:
        """Measured at one place, samples written, both remembered."""
        how, samples = self._options(place), self.folder / self.bench.samples(place)

        def sit(before: int) -> Sitting:
            # Of one candidate the rounds of each sitting run in another order.
            how["seed"] = self.seed + AGAIN * before
            return _told(place.sit(models, self.bench.reference, **how), self.bench)

        settings = (self.bench.baseline.sha256, *deployment(self.bench, place), self.bench.against)
        sitting = in_its_usual_state(sit, *settings)
        write_samples(sitting, samples)
        about, value = _sitting(self.bench, place), sitting.latency.to_json()
        self.stages.keep("measure", *about, value=value, arrays=bytes_of({SAMPLES: samples}))
        return sitting.latency


def _recalled(left: Left, samples: Path) -> Latency:
    samples.write_bytes(left.arrays[SAMPLES].numpy().tobytes())
    return Latency.from_json(left.value)


def _told(sitting: Sitting, bench: Bench) -> Sitting:
    """A sitting whose candidate says the precision that it ships at, and its ratio to the dense network at f32."""
    latency, beside = sitting.latency, sitting.latencies.get(DENSE_F32)
    precision = "int8" if bench.precision == "int8" else latency.precision
    changed = replace(latency, precision=precision, ratio_f32=latency.ratio / beside.ratio if beside else None)
    return replace(sitting, latencies={**sitting.latencies, CANDIDATE: changed})


def deployment(bench: Bench, place: Place) -> tuple[object, ...]:
    """What the deployed network and its latency depend on besides its channels and weights."""
    maker, runner = version_of("nncf") if bench.precision == "int8" else "", place.runner
    return bench.precision, runner.device, runner.precision, sorted(runner.settings().items()), maker, _identity(place)


def _sitting(bench: Bench, place: Place) -> tuple[object, ...]:
    """What a latency depends on besides its channels and the dense network."""
    energy = place.meter and place.meter.source
    return *deployment(bench, place), bench.against, bench.seconds_to_measure, energy


def _identity(place: Place) -> object:
    return sorted(place.device.to_json().items())
