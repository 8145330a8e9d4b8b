"""Which candidates the bench of trials compares, and each one pruned, trained and judged by the product itself."""

import base64
import functools
import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunefleet.agent.compress.prune import Pruned, prune
from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import MeasurementSetup, compare_many
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.runners.base import OpenVINORunner, supported_precisions
from prunefleet.agent.profile.make import make_profile
from prunefleet.agent.profile.points import Effort
from prunefleet.agent.tasks.task import Task, statistics
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.request import Request, from_config, from_sweep
from prunefleet.agent.trial.stages import deployed, remembered, trained
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.profiles.profile import Profile, warm_points
from prunefleet.objective.profiles.space import Space
from prunefleet.objective.sweepfile import read_sweep_file
from prunefleet.objective.trial import Candidate, Latency

from support.paths import ROOT
from support.trial_context import CONFIG as TINY

WORK = "bench-trials"
SPLITS = ("validation", "holdout", "test")
UNIFORM = (0.25, 0.5, 0.625, 0.75)
LIMITS = (0.75, 0.5, 0.3, 0.2)
"""Latency ratios that the profile's curves are asked to reach; for each, `warm_points` gives some around it."""
CHOSEN = 8
DENSE = "dense"
Kept = Mapping[str, int]


@dataclass(frozen=True)
class Network:
    """A network with its data, as a sweep file names them; `seeds` are of fine-tuning.

    `effort` is what its profile may cost, and `longer` how many times the sweep's epochs long fine-tuning takes, if it
    is tried.
    """

    request: Callable[[], Request]
    seeds: tuple[int, ...]
    effort: Effort
    longer: float | None = None


NETWORKS = {
    "demo": Network(lambda: _of(ROOT / "sweep.yaml"), (0, 1, 2), Effort(mixed=0), longer=4),
    "elpv": Network(lambda: _of(ROOT / "docs" / "examples" / "elpv.yaml"), (0,), Effort(328, 3, 0)),
    "tiny": Network(lambda: from_config(TINY), (0, 1), Effort(levels=4, mixed=0, session_s=1.0), longer=2),
}


def _of(sweep: Path) -> Request:
    return from_sweep(read_sweep_file(sweep))


@dataclass(frozen=True)
class Job:
    """One fine-tuning: of which candidate, with which seed, for how many epochs; the network is judged at `precisions`.

    The dense network's has no epochs: it is judged as it is.
    """

    network: str
    name: str
    kept: Kept
    seed: int
    epochs: float
    precisions: tuple[str, ...]

    @property
    def key(self) -> str:
        """What it is remembered by."""
        return f"{self.name} seed {self.seed} epochs {self.epochs:g}"

    @property
    def folder(self) -> Path:
        """Where the networks that it leaves are, by precision."""
        return cache_folder() / WORK / self.network / self.key.replace(" ", "-")


@functools.cache
def bench_of(network: str) -> TrialContext:
    """This host's bench for a network, made once a process; the dense network is trained where it is missing."""
    return prepare(NETWORKS[network].request(), None, StageWatch().during)


def at(bench: TrialContext, precision: str) -> TrialContext:
    """The bench at another precision and on the grid of f32: at each precision the same networks are compared."""
    return replace(bench.at(precision), space=bench.space)


def precisions() -> tuple[tuple[str, ...], dict[str, str]]:
    """Those that this host can measure, and what the product says of the others."""
    able, refused = ["f32"], {}
    if "bf16" in supported_precisions():
        able.append("bf16")
    else:
        try:
            OpenVINORunner(precision="bf16")
        except BadInput as error:
            refused["bf16"] = str(error)
    if find_spec("nncf"):
        able.append("int8")
    else:
        refused["int8"] = "NNCF is not installed"
    return tuple(able), refused


def profile_of(network: str, report: Callable[[int, int, str], None]) -> Profile:
    """Sensitivity and latency of each group alone; what was measured before is taken from the cache."""
    bench, effort = bench_of(network), NETWORKS[network].effort
    return make_profile(
        bench.task,
        bench.baseline,
        bench.places,
        "f32",
        bench.goal,
        cache_folder(),
        report,
        effort=effort,
    )


def uniform_candidates(space: Space, ratios: Sequence[float] = UNIFORM) -> dict[str, Kept]:
    """Kept channels of pruning every group by the same ratio, on the grid, by name."""
    return {f"uniform {ratio:g}": space.uniform(ratio) for ratio in ratios}


def pool(profile: Profile, space: Space, limits: Sequence[float] = LIMITS) -> list[Kept]:
    """Distinct candidates that the profile's curves suggest for these latency ratios: no uniform one among them."""
    known, found = [dict(space.widths), *map(dict, space.uniform_ladder())], []
    for limit in limits:
        goal = Goal(kind=Kind.MOST_ACCURATE.value, metric=profile.metric, max_latency_ratio=limit)
        for kept in map(space.kept, warm_points(profile, goal)):
            if kept not in [*known, *found]:
                found.append(kept)
    return found


def spread(ratios: Sequence[float], count: int) -> list[int]:
    """Places of `count` of the ratios, evenly spread in their logarithms, the slowest first; all where there are fewer.

    Each wanted ratio, from the largest to the smallest, takes the nearest that is left.
    """
    logs, left, taken = np.log(ratios), list(range(len(ratios))), []
    for wanted in np.linspace(logs.max(), logs.min(), min(count, len(ratios))):
        nearest = min(left, key=lambda place: (abs(logs[place] - wanted), place))
        left.remove(nearest)
        taken.append(nearest)
    return sorted(taken, key=lambda place: -ratios[place])


def choose(network: str, report: Callable[[int, int, str], None]) -> dict[str, Any]:
    """The candidates: kept channels by name, and the latency ratio of each before training, from one sitting."""
    bench, profile = bench_of(network), profile_of(network, report)
    suggested = pool(profile, bench.space)
    names = {f"pool {place}": kept for place, kept in enumerate(suggested)} | uniform_candidates(bench.space)
    with tempfile.TemporaryDirectory() as folder:
        models = {
            name: bench.deploy(_pruned(bench, kept, 0).network, Path(folder), f"m{place}", rough=True)
            for place, (name, kept) in enumerate(names.items())
        }
        found = compare_many(
            models,
            bench.dense,
            MeasurementSetup(runner=bench.runner, device=bench.devices[0], time_limit_s=20, throughput_s=0, loads=1),
        )
    latency = found.latencies
    places = spread([latency[f"pool {place}"].ratio for place in range(len(suggested))], CHOSEN)
    renamed = {f"uniform {ratio:g}": f"uniform {ratio:g}" for ratio in UNIFORM}
    renamed |= {f"pool {place}": f"chosen {rank}" for rank, place in enumerate(places, start=1)}
    return {
        "kept": {new: dict(names[old]) for old, new in renamed.items()},
        "latency": {new: latency[old].to_json() for old, new in renamed.items()},
        "profile": profile.to_json() | {"effort": asdict(NETWORKS[network].effort), "suggested": len(suggested)},
    }


@dataclass(frozen=True)
class _Timed:
    """A latency that is known before the trial: the candidate is trained whatever it is."""

    latency: Latency

    def hopeful(self) -> bool:
        return True

    def row(self) -> dict[str, float]:
        return {"latency_ratio": self.latency.ratio}

    def scored(self, metric: float) -> dict[str, float]:
        return {}


def _pruned(bench: TrialContext, kept: Kept, seed: int) -> Pruned:
    return prune(bench.baseline.network, bench.task.example_input(), bench.groups, kept, "l2", seed)


def work(job: Job, latency: Mapping[str, Any]) -> dict[str, Any]:
    """Prune, train and judge a candidate, each finished stage once; `latency` goes into the rows of training alone."""
    torch.set_num_threads(1)
    bench, watch = bench_of(job.network), StageWatch()
    candidate = Candidate(bench.space.ratios(job.kept), "f32", job.epochs, job.seed)
    pruned, found = _pruned(bench, job.kept, job.seed), {}
    stages = remembered(bench, candidate)
    timed: Any = _Timed(Latency.from_json(latency))
    before = trained(pruned.network, bench, candidate, timed, watch, stages)
    for precision in job.precisions:
        there = at(bench, precision)
        with tempfile.TemporaryDirectory() as folder:
            own = replace(candidate, precision=precision)
            model, parity, _ = deployed(pruned.network, there, own, Path(folder), watch, remembered(there, own))
            _keep(model, job.folder / precision)
            judged = _judged(there.task, there.as_deployed(model, pruned.network), there.goal.metric)
        found[precision] = judged | {"parity": parity, "size_bytes": model.size_bytes}
    return {
        "before": before,
        "ratios": dict(candidate.ratios),
        "params": pruned.params,
        "macs": pruned.macs,
        "lr": bench.lr,
        "distill": bench.distill,
        "seconds": watch.seconds,
        "precisions": found,
    }


def judge_dense(network: str, able: Sequence[str]) -> dict[str, Any]:
    """The dense network at each precision."""
    bench, found = bench_of(network), {}
    for precision in able:
        there = at(bench, precision)
        judged = there.as_deployed(there.dense, bench.baseline.network)
        found[precision] = _judged(there.task, judged, there.goal.metric) | {"size_bytes": there.dense.size_bytes}
    whole = _pruned(bench, bench.space.widths, 0)
    size = {"params": whole.params, "macs": whole.macs}
    return {
        **size,
        "baseline": bench.baseline.sha256,
        "seconds": {"dense": bench.baseline.seconds},
        "precisions": found,
    }


def _keep(model: Exported, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".xml", ".bin"):
        shutil.copyfile(model.xml.with_suffix(suffix), folder / f"model{suffix}")


def kept_model(job: Job, precision: str, shape: tuple[int, ...]) -> Exported:
    """The network that a job left."""
    return sized(job.folder / precision / "model.xml", precision, shape)


class Once(nn.Module):
    """Answers each batch once, and from memory when it is asked again."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network.eval()
        self._known: dict[bytes, torch.Tensor] = {}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, ...] → what the network gives."""
        key = hashlib.blake2b(batch.contiguous().numpy().data, digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._network(batch)
        return self._known[key]


def _judged(task: Task, judged: nn.Module, metric: str) -> dict[str, Any]:
    """Each metric on each split, and what single examples contribute to the sweep's metric on holdout and test."""
    network = Once(judged)
    quality = {split: task.evaluate(network, split) for split in SPLITS}
    figures = {split: statistics(task, network, split, metric) for split in SPLITS[1:]}
    return {
        "quality": quality,
        "examples": {split: packed(each) for split, each in figures.items() if each is not None},
    }


def packed(figures: torch.Tensor) -> dict[str, Any]:
    """Figures [n, k] of 0 and 1 as JSON, an eighth of a byte each."""
    bits = figures.numpy().astype(bool)
    if not (bits == figures.numpy()).all():
        raise ValueError("figures of examples other than 0 and 1")
    return {"shape": list(bits.shape), "bits": base64.b64encode(np.packbits(bits).tobytes()).decode()}


def unpacked(told: Mapping[str, Any]) -> NDArray[np.float64]:
    """The figures again, [n, k]."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(told["bits"]), np.uint8), count=math.prod(told["shape"]))
    return bits.reshape(told["shape"]).astype(np.float64)
