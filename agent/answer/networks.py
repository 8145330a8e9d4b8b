"""The networks of one answer: fetched, pruned and trained, evaluated on test, measured together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from prunefleet.agent.answer.controls import Evaluated, evaluate
from prunefleet.agent.answer.winner import published
from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.cache_files import bundle_folder
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import MeasurementSession, MeasurementSetup
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.measure.runners.base import SampledNetwork
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.registry import at_default
from prunefleet.agent.tasks.gradients import backward_of
from prunefleet.agent.tasks.training import recalibrate
from prunefleet.agent.tracking.tracked_run import Reader, RunRecord
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.places import MeasuringPlace, ask_ahead
from prunefleet.agent.trial.request import Request

SESSION_S, LOOK_S = 8.0, 3.0
"""Seconds of the measurement session that is reported, and of the one that says which controls are needed."""
WINNER, DEFAULT = "winner", "dense_default"
Sessions = dict[str, MeasurementSession]
"""By the name of the device."""


@dataclass(frozen=True)
class Networks:
    """Makes, evaluates and measures networks as the sweep's trials do; their files go to `folder`."""

    reader: Reader
    request: Request
    context: TrialContext
    watch: StageWatch
    folder: Path

    @property
    def metric(self) -> str:
        """The sweep's quality metric."""
        return self.request.goal.metric

    def at(self, precision: str) -> "Networks":
        """Return the same at another precision."""
        return replace(self, context=self.context.at(precision))

    def of_run(self, run: RunRecord) -> Evaluated:
        """Return the trained network of a scored run, from its files, with its test quality."""
        folder, context = self.folder / run.name, self.context
        with self.watch.during("fetch"):
            if not self.reader.fetch(published(run), folder):
                folder = bundle_folder(run.name)  # it was not to leave this host
            found = bundle.read(folder, context.baseline.network, context.task.example_input(), context.groups)
        return self.evaluated(found, run.config["kept"])

    def pruned(self, kept: Mapping[str, int]) -> nn.Module:
        """Return the dense network pruned to these channels as the sweep prunes, not trained yet."""
        asked, context = self.request.candidate, self.context
        how = (asked.importance, asked.seed, asked.ranking, backward_of(context.task, asked.seed))
        return prune(context.baseline.network, context.task.example_input(), context.groups, kept, *how).network

    def trained(self, bare: Evaluated) -> Evaluated:
        """Train a pruned network in place by the recipe of the trials; returns it with its test quality."""
        with self.watch.during("train"):
            recalibrate(self.context.task, bare.network)
            self.context.task.fit(bare.network, self.context.budget(self.request.candidate), self.watch.rung)
            self.watch.check()
        return self.evaluated(bare.network, bare.kept)

    def evaluated(self, network: nn.Module, kept: Mapping[str, int]) -> Evaluated:
        """Return a network's test quality as it would ship: deployed, at another precision than f32."""
        with self.watch.during("evaluate"):
            if isinstance(network, Deployed) or self.context.precision == "f32":
                return evaluate(self.context.task, network, dict(kept), self.metric)
            model = self.context.deploy(network, self.folder / "evaluated")
            found = evaluate(self.context.task, self.context.as_deployed(model, network), dict(kept), self.metric)
        return replace(found, network=network)

    def dense(self) -> Evaluated:
        """Return the dense network that latency ratios are of."""
        network, widths = self.context.baseline.network, self.context.space.widths
        if self.context.reference.precision != "f32":
            return self.evaluated(network, widths)
        with self.watch.during("evaluate"):
            return evaluate(self.context.task, network, dict(widths), self.metric)

    def default_quality(self, dense: Evaluated) -> dict[str, float]:
        """Return the dense network's test quality at the device's default precision; nothing where none runs here."""
        if isinstance(self.context.runner, RemoteRunner):
            return {}
        model = self.context.dense_f32
        loaded = at_default(self.context.runner).load(model)
        if isinstance(loaded, SampledNetwork):
            return {}
        found = self.evaluated(self.context.answering(loaded, model), dense.kept)
        return {**found.quality(), **found.drop_from(dense)}

    def measured(self, networks: Mapping[str, Evaluated], seconds: float) -> Sessions:
        """Measure all on each device, and with them the dense network at the device's default precision."""
        context = self.context
        with self.watch.during("measure"):
            folder, rough = self.folder / "measured", seconds <= LOOK_S
            models = {
                name: context.deploy(each.network, folder, f"model{index}", rough)
                for index, (name, each) in enumerate(networks.items())
            }
            models[DEFAULT] = context.dense_f32
            setup = partial(self._setup, list(networks), seconds)
            ask_ahead(context.places, models, context.reference, setup)
            return {
                place.device.name: place.measure(models, context.reference, setup(place)) for place in context.places
            }

    def _setup(self, names: Sequence[str], seconds: float, place: MeasuringPlace) -> MeasurementSetup:
        """Return how a place measures networks of these names."""
        return MeasurementSetup(
            runner=place.at(self.context.reference.precision).runner,
            runners={**dict.fromkeys(names, place.runner), DEFAULT: at_default(place.runner)},
            device=place.device,
            time_limit_s=seconds,
            throughput_s=0.2 if seconds > LOOK_S else 0.0,
        )


def slowest(sessions: Sessions) -> MeasurementSession:
    """Return the session of the device that counts: the one with the winner's largest latency ratio."""
    return max(sessions.values(), key=lambda session: session.latencies[WINNER].ratio)
