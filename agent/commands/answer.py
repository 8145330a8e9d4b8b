"""`python -m agent answer`: the winner of a sweep, measured once more beside what it has to beat, in one session."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunefleet.agent.answer.controls import Evaluated, Point, against_uniform, evaluate, latency_of
from prunefleet.agent.answer.winner import choose, gain, published
from prunefleet.agent.commands.plan import Watching, tell, watching
from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.cache_files import bundle_folder, replace_file
from prunefleet.agent.measure.benchmark import DENSE, MeasurementSession, MeasurementSetup
from prunefleet.agent.measure.device import usable_cores
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.measure.runners.base import SampledNetwork
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.registry import at_default
from prunefleet.agent.tasks.gradients import backward_of
from prunefleet.agent.tasks.training import recalibrate, threads
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.tracking.probe import require_server
from prunefleet.agent.tracking.tracked_run import Reader, RunRecord
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.places import MeasuringPlace, ask_ahead
from prunefleet.agent.trial.request import Request, from_sweep
from prunefleet.objective.goals.stats import mean_itself
from prunefleet.objective.profiles.profile import Profile

RUNGS = 16  # a network of many wide groups has hundreds of uniform candidates, and each costs an export
TRAINED_AT_MOST = 3
SECONDS_FOR_TRAINING = 45.0
SESSION_S, LOOK_S = 8.0, 3.0
DEFAULT = "dense_default"
Kept = dict[str, int]


def answer(sweep: str, out: Path | None) -> int:
    """Write the answer of `sweep` (entity/project/id) as JSON to `out`, or to standard output.

    Reads the test split, for the winner and its controls alone; notes the result in the winner's summary and in runs of
    job type "control". Raises `BadInput`, or `TrialFailed` for a fault of this host.
    """
    require_server()
    reader = Reader(sweep)
    request = from_sweep(reader.config)
    with watching() as watch, tempfile.TemporaryDirectory() as folder:
        context = prepare(request, reader, watch.during, check=watch.check)
        with threads(usable_cores()):  # the agents have ended
            found = _Answer(reader, request, context, watch, Path(folder)).find()
    text = json.dumps(found, indent=1)
    if out:
        replace_file(out, text.encode())
    else:
        print(text)
    return 0


@dataclass
class _Answer:
    """The finding of one answer."""

    reader: Reader
    request: Request
    context: TrialContext
    watch: Watching
    folder: Path
    sessions: dict[str, MeasurementSession] = field(default_factory=dict)

    def find(self) -> dict[str, Any]:
        """The answer as plain values."""
        metric = self.request.goal.metric
        scored = [run for run in self.reader.runs() if run.summary.get("outcome") == "scored"]
        if not scored:
            return {"winner": None, "controls": {}, "hypervolume_gain": {"warm": 0.0, "all": 0.0, "gain": 0.0}}
        tell("answer", 1, 5, f"{len(scored)} scored runs")
        chosen, agrees = choose(scored, self.request.goal, self.context.baseline.metrics["holdout"][metric])
        # A sweep may search the precision too: all is evaluated and measured at the winner's.
        self.context = self.context.at(chosen.config.get("measure", {}).get("precision", self.context.precision))
        winner = self._evaluated(self._network(chosen), chosen.config["kept"])
        dense = self._dense()
        tell("answer", 2, 5, f"winner {chosen.name}, test {metric} {winner.metric:.4f}, dense {dense.metric:.4f}")
        uniform = self._uniform(winner, {_key(run.config["kept"]): run for run in scored})
        tell("answer", 4, 5, f"{len(uniform)} uniform controls evaluated")
        session = self._measured({"winner": winner, **{_key(each.kept): each for each in uniform}}, SESSION_S)
        controls = self._controls(winner, dense, uniform, session)
        controls[DEFAULT] |= self._default_quality(dense)
        self._note(chosen, winner, controls)
        tell("answer", 5, 5, f"measured in one measurement session of {len(session.slots[DENSE])} rounds")
        told = {
            "run": chosen.name,
            **self._files(chosen),
            "precision": self.context.precision,
            "ratios": dict(chosen.config.get("ratio", {})),
            "kept": dict(chosen.config["kept"]),
            "metric": metric,
            "val": chosen.summary[f"val_{metric}"],
            "holdout": chosen.summary[f"holdout_{metric}"],
            "holdout_agrees": agrees,
            **{key: chosen.summary.get(key) for key in ("score", "params", "macs", "size_bytes")},
            **winner.quality(),
            **winner.drop_from(dense),
            **latency_of(session, "winner"),
            **self._on_each(),
        }
        device = session.latencies["winner"].device
        measured = {"rounds": len(session.slots[DENSE]), "device": device.to_json()}
        return {
            "winner": told,
            "controls": controls,
            "hypervolume_gain": gain(scored, self._warm()),
            "sitting": measured,
        }

    def _on_each(self) -> dict[str, Any]:
        """The winner's latency on each device, where there are several."""
        each = {name: latency_of(session, "winner") for name, session in self.sessions.items()}
        return {"devices": each} if len(each) > 1 else {}

    def _files(self, chosen: RunRecord) -> dict[str, str | None]:
        """Where the winner's files are: in the project, or on this host if they may not leave it."""
        if self.request.upload == "metrics":
            return {"artifact": None, "files": str(bundle_folder(chosen.name))}
        return {"artifact": f"{self.reader.project}/{published(chosen)}"}

    def _evaluated(self, network: nn.Module, kept: Mapping[str, int]) -> Evaluated:
        """A network's test quality as it would ship: at another precision than f32 the deployed one is evaluated."""
        metric = self.request.goal.metric
        with self.watch.during("evaluate"):
            if isinstance(network, Deployed) or self.context.precision == "f32":
                return evaluate(self.context.task, network, dict(kept), metric)
            model = self.context.deploy(network, self.folder / "evaluated")
            found = evaluate(self.context.task, self.context.as_deployed(model, network), dict(kept), metric)
        return replace(found, network=network)

    def _dense(self) -> Evaluated:
        """The dense network that latency ratios are of."""
        network, widths = self.context.baseline.network, self.context.space.widths
        if self.context.reference.precision != "f32":
            return self._evaluated(network, widths)
        with self.watch.during("evaluate"):
            return evaluate(self.context.task, network, dict(widths), self.request.goal.metric)

    def _default_quality(self, dense: Evaluated) -> dict[str, float]:
        """The dense network's test quality at the device's default precision; nothing where it runs none here."""
        if isinstance(self.context.runner, RemoteRunner):
            return {}
        model = self.context.dense_f32
        loaded = at_default(self.context.runner).load(model)
        if isinstance(loaded, SampledNetwork):
            return {}
        evaluated = self._evaluated(Deployed(loaded, model.input_shape), dense.kept)
        return {**evaluated.quality(), **evaluated.drop_from(dense)}

    def _network(self, run: RunRecord) -> nn.Module:
        """The trained network of a scored run, from its files."""
        folder = self.folder / run.name
        with self.watch.during("fetch"):
            if not self.reader.fetch(published(run), folder):
                folder = bundle_folder(run.name)  # it was not to leave this host
            return bundle.read(folder, self.context.baseline.network, self._example, self.context.groups)

    @property
    def _example(self) -> torch.Tensor:
        return self.context.task.example_input()

    def _uniform(self, winner: Evaluated, runs: Mapping[str, RunRecord]) -> list[Evaluated]:
        """Aligned uniform networks around the winner, from the sweep where it has them, else trained likewise."""
        ladder = evenly(
            [kept for kept in self.context.space.uniform_ladder() if kept != self.context.space.widths], RUNGS
        )
        bare = {_key(kept): Evaluated(kept, self._pruned(kept), 0.0) for kept in ladder}
        look = self._measured({"winner": winner, **bare}, LOOK_S)
        ratio = {name: look.latencies[name].ratio for name in ("winner", *bare)}
        evaluated = {name: self._evaluated(self._network(runs[name]), bare[name].kept) for name in bare if name in runs}
        tell("answer", 3, 5, f"{len(bare)} aligned uniform candidates timed, {len(evaluated)} of them in the sweep")
        began = time.perf_counter()
        for _ in range(TRAINED_AT_MOST):
            name = wanted(ratio, {key: each.metric for key, each in evaluated.items()}, winner.metric)
            if name is None or time.perf_counter() - began > SECONDS_FOR_TRAINING:
                break
            evaluated[name] = self._evaluated(self._trained(bare[name]), bare[name].kept)
        return list(evaluated.values())

    def _pruned(self, kept: Kept) -> nn.Module:
        asked = self.request.candidate
        how = (asked.importance, asked.seed, asked.ranking, backward_of(self.context.task, asked.seed))
        return prune(self.context.baseline.network, self._example, self.context.groups, kept, *how).network

    def _trained(self, bare: Evaluated) -> nn.Module:
        """A control trained by the recipe of the trials."""
        network = bare.network
        with self.watch.during("train"):
            recalibrate(self.context.task, network)
            self.context.task.fit(network, self.context.budget(self.request.candidate), self.watch.rung)
            self.watch.check()
        return network

    def _measured(self, networks: Mapping[str, Evaluated], seconds: float) -> MeasurementSession:
        """Measure all at once, and the dense network at the device's default precision.

        Of several devices the measurement session of the one that counts, where the winner's ratio is largest.
        """
        with self.watch.during("measure"):
            folder, rough = self.folder / "measured", seconds <= LOOK_S
            models = {
                name: self.context.deploy(each.network, folder, f"model{index}", rough)
                for index, (name, each) in enumerate(networks.items())
            }
            models[DEFAULT] = self.context.dense_f32
            setup = partial(self._setup, list(networks), seconds)
            ask_ahead(self.context.places, models, self.context.reference, setup)
            self.sessions = {
                place.device.name: place.measure(models, self.context.reference, setup(place))
                for place in self.context.places
            }
        return max(self.sessions.values(), key=lambda session: session.latencies["winner"].ratio)

    def _setup(self, names: Sequence[str], seconds: float, place: MeasuringPlace) -> MeasurementSetup:
        """Return how a place measures networks of these names."""
        return MeasurementSetup(
            runner=place.at(self.context.reference.precision).runner,
            runners={**dict.fromkeys(names, place.runner), DEFAULT: at_default(place.runner)},
            device=place.device,
            time_limit_s=seconds,
            throughput_s=0.2 if seconds > LOOK_S else 0.0,
        )

    def _controls(
        self, winner: Evaluated, dense: Evaluated, uniform: Sequence[Evaluated], session: MeasurementSession
    ) -> dict[str, dict[str, Any]]:
        own = session.latencies["winner"].ratio
        precision = {name: session.latencies[name].precision for name in (DENSE, DEFAULT)}
        controls: dict[str, dict[str, Any]] = {
            DENSE: {"precision": precision[DENSE], **dense.quality(), **latency_of(session, DENSE)},
            DEFAULT: {"precision": precision[DEFAULT], **latency_of(session, DEFAULT)},
        }
        if not uniform:
            return controls
        nearest = min(uniform, key=lambda each: abs(session.latencies[_key(each.kept)].ratio - own))
        controls["uniform"] = {
            "precision": self.context.precision,
            "kept": dict(nearest.kept),
            **nearest.quality(),
            **nearest.drop_from(dense),
            **latency_of(session, _key(nearest.kept)),
            **against_uniform(
                _point(winner, session, "winner"),
                [_point(each, session, _key(each.kept)) for each in uniform],
                _point(dense, session, DENSE),
                mean_itself if winner.examples is None else winner.value,
            ),
            "line": [
                {"kept": dict(each.kept), "test": each.metric, **latency_of(session, _key(each.kept))}
                for each in uniform
            ],
        }
        return controls

    def _warm(self) -> list[Kept]:
        """Kept channels of the profile's warm points; none where the sweep has no profile."""
        name, folder = self.request.profile, self.folder / "profile"
        if name is None or not self.reader.fetch(name, folder):
            return []
        profile = Profile.load(folder / "profile.json")
        return [self.context.space.kept(ratios) for ratios in profile.warm]

    def _note(self, chosen: RunRecord, winner: Evaluated, controls: Mapping[str, Mapping[str, Any]]) -> None:
        """Put the test metric in the winner's summary, and the controls in runs of their own."""
        metric = self.request.goal.metric
        self.reader.update_summary(chosen.name, {f"test_{metric}": winner.metric})
        for name, control in controls.items():
            values = {key: value for key, value in control.items() if isinstance(value, float | str) and key != "test"}
            values |= {f"test_{metric}": control["test"]} if "test" in control else {}
            identity = {"id": f"{self.reader.name}-{name}".replace("_", "-"), "name": name, "group": self.reader.name}
            with tracked_run.own_run(self.watch.stopper, "control", upload=self.request.upload, **identity) as loaded:
                loaded.note(
                    {"kept": control.get("kept", self.context.space.widths), "host": self.context.devices[0].host}
                )
                loaded.summarise(values)


def evenly(ladder: Sequence[Kept], most: int) -> list[Kept]:
    """At most so many of the rungs, evenly chosen, the first and the last among them."""
    places = np.linspace(0, len(ladder) - 1, min(most, len(ladder))).round().astype(int)
    return [ladder[place] for place in places]


def wanted(ratio: Mapping[str, float], evaluated: Mapping[str, float], quality: float) -> str | None:
    """Return the uniform rung to train next, so that the line is known at the winner's latency, then at its quality.

    `ratio`: latency ratios of all rungs and of "winner". `evaluated`: quality of the rungs that are trained. None when
    the rungs beside the winner's latency and those beside its quality are trained.
    """
    order = sorted((name for name in ratio if name != "winner"), key=lambda name: ratio[name])
    faster = [name for name in order if ratio[name] <= ratio["winner"]][-1:]
    slower = [name for name in order if ratio[name] > ratio["winner"]]
    for name in (*faster, *slower[:1]):
        if name not in evaluated:
            return name
    for name in slower:
        if name not in evaluated:
            return name
        if evaluated[name] >= quality:
            return None
    return None


def _point(evaluated: Evaluated, session: MeasurementSession, name: str) -> Point:
    examples = np.array([[evaluated.metric]]) if evaluated.examples is None else evaluated.examples
    return Point(examples, session.slots[name])


def _key(kept: Mapping[str, int]) -> str:
    return ",".join(f"{group}={count}" for group, count in sorted(kept.items()))
