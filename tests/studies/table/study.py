"""What the bench of a table tries: its networks, their dense ones kept in the repository, and the candidates."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from prunefleet.agent.host.cache_files import cache_folder, only_one, replace_file
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.device import channel_step
from prunefleet.agent.profile.make import make_profile
from prunefleet.agent.profile.points import Effort
from prunefleet.agent.tasks import baseline
from prunefleet.agent.trial.context import TrialContext, prepare, space_of
from prunefleet.agent.trial.request import Request, from_config
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile, warm_points
from prunefleet.objective.profiles.space import Space

from studies.trials.study import LIMITS, Kept, pool
from support.paths import RESULTS
from support.trial_context import CONFIG as TINY

WORK = "bench-table"

DENSE, UNIFORM, RANDOM, CURVES, NEIGHBOUR = ORIGINS = ("dense", "uniform", "random", "curves", "neighbour")
DROPS = (0.002, 0.005, 0.01, 0.02, 0.03)
"""Of a search's goals: what their warm points look like is what a search comes to."""
DEEPEST = 0.9
RESNET20: dict[str, Any] = {
    "task": "studies.table.task:TableTask",
    "objective": {"kind": "fastest", "max_drop": 0.01},
    "recipe": {"epochs": 0.4},
}


@dataclass(frozen=True)
class Setting:
    """A network and how its table is made: `candidates` distinct ones, `repeated` of them with each of `seeds`.

    `step` is that of the channel grid, the same on every machine; `effort` is what the profile may cost, from which
    some of the candidates are drawn.
    """

    request: Callable[[], Request]
    folder: Callable[[], Path]
    step: int = 8
    candidates: int = 420
    repeated: int = 30
    seeds: tuple[int, ...] = (0, 1, 2)
    effort: Effort = field(default_factory=lambda: Effort(mixed=0))
    sitting_s: float = 6.0
    on_grid: int = 400
    """Candidates that are timed on the device's own grid."""
    drawn: int = 20240607


SETTINGS = {
    "resnet20": Setting(lambda: from_config(RESNET20), lambda: RESULTS),
    "tiny": Setting(
        lambda: from_config(TINY | {"recipe": {"epochs": 1}}),
        lambda: cache_folder() / WORK,
        step=16,
        candidates=14,
        repeated=2,
        seeds=(0, 1),
        effort=Effort(examples=200, levels=2, mixed=0, session_s=0.3),
        sitting_s=0.3,
        on_grid=12,
    ),
}


class Shelf:
    """A project's artifacts, but one file: the dense network in half precision, half as large in the repository."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, name: str, folder: Path) -> bool:
        """Put the dense network into `folder`, where it is on the shelf."""
        if self.path.exists():
            (folder / baseline.FILE).write_bytes(self.path.read_bytes())
        return self.path.exists()

    def named(self, kind: str, sha256: str) -> None:
        """Return no name: the one network is fetched by any."""

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        """Round a dense network and keep it; not "v0", so that whoever trained it takes the rounded one too."""
        with safe_open(files[0], "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            note = file.metadata()
        rounded = {key: each.half() if each.is_floating_point() else each for key, each in tensors.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_file(rounded, self.path, note)
        return "rounded"


@functools.cache
def prepared(network: str) -> TrialContext:
    """The bench of this host on its own grid, with the dense network of the repository; made once a process."""
    setting = SETTINGS[network]
    shelf = Shelf(setting.folder() / f"{name_of(network)}-dense.safetensors")
    found = prepare(setting.request(), shelf, StageWatch().during)
    return _on(found, channel_step(found.devices[0], "f32"))


@functools.cache
def bench_of(network: str) -> TrialContext:
    """The bench of this host on the table's grid."""
    return _on(prepared(network), SETTINGS[network].step)


def _on(found: TrialContext, step: int) -> TrialContext:
    """The bench on a grid of such steps, which its device tells."""
    here = found.places[0]
    device = replace(here.device, channel_steps={"f32": step})
    return replace(found, places=(replace(here, device=device),), space=space_of(found.groups, [device], "f32"))


def name_of(network: str) -> str:
    """What the files of a network's table begin with."""
    return "table" if network == "resnet20" else f"table-{network}"


def profile_of(network: str, report: Callable[[int, int, str], None]) -> Profile:
    """Sensitivity and latency of each group alone, on the table's grid."""
    bench = bench_of(network)
    known = (bench.task, bench.baseline, bench.places, "f32", bench.goal, cache_folder(), report)
    return make_profile(*known, effort=SETTINGS[network].effort)


Drawn = tuple[str, dict[str, int]]
"""Where a candidate comes from, one of ORIGINS, and its kept channels."""


def draw(profile: Profile, space: Space, count: int, seed: int) -> list[Drawn]:
    """`count` distinct candidates as searches visit them, in an order of which any beginning is a fair sample.

    The dense network and the uniform ones; of the rest a third each at random, from what the profile's curves suggest
    for latencies with some groups changed, and close to what they suggest for drops.
    """
    random = np.random.default_rng(seed)
    ladder = list(map(dict, space.uniform_ladder()))
    found: dict[tuple[int, ...], Drawn] = {}

    def add(origin: str, kept: Kept) -> None:
        if len(found) < count:
            found.setdefault(tuple(kept.values()), (origin, dict(kept)))

    for rung in ladder:
        add(DENSE if rung == space.widths else UNIFORM, rung)
    sources = {
        RANDOM: _random(space, random),
        CURVES: _changed(pool(profile, space, (*LIMITS, 0.9, 0.6, 0.4, 0.15)), space, random, most=4, far=99),
        NEIGHBOUR: _changed(_around(profile, space), space, random, most=3, far=1),
    }
    for turn in range(30 * count):
        origin = list(sources)[turn % len(sources)]
        add(origin, next(sources[origin]))
    drawn = list(found.values())
    return [drawn[place] for place in random.permutation(len(drawn))]


def _random(space: Space, random: np.random.Generator) -> Iterator[dict[str, int]]:
    """Each group's ratio by itself; every other time all of them more, or all of them less."""
    while True:
        for power in (1.0, math.exp(random.uniform(-1.2, 1.2))):
            ratios = np.minimum(DEEPEST * random.uniform(size=len(space.groups)) ** power, space.max_ratio)
            yield space.kept({spec.name: float(ratio) for spec, ratio in zip(space.groups, ratios, strict=True)})


def _changed(
    bases: Sequence[Kept], space: Space, random: np.random.Generator, most: int, far: int
) -> Iterator[dict[str, int]]:
    """The bases, then one of them by chance with 1 to `most` groups moved by up to `far` levels, for ever."""
    yield from map(dict, bases)
    names = [spec.name for spec in space.groups]
    while True:
        kept = dict(bases[random.integers(len(bases))])
        for place in random.permutation(len(names))[: random.integers(1, most + 1)]:
            levels = space.levels(names[place])
            now = levels.index(kept[names[place]])
            others = levels[max(0, now - far) : now] + levels[now + 1 : now + 1 + far]
            kept[names[place]] = int(random.choice(others)) if others else kept[names[place]]
        yield kept


def _around(profile: Profile, space: Space) -> list[dict[str, int]]:
    """What the curves suggest for goals that allow drops from 0.2 to 3 points."""
    found: list[dict[str, int]] = []
    for drop in DROPS:
        for ratios in warm_points(profile, Goal(metric=profile.metric, max_drop=drop)):
            kept = space.kept(ratios)
            if kept not in found and kept != space.widths:
                found.append(kept)
    return found


@dataclass(frozen=True)
class Job:
    """One trial: which candidate, its kept channels, and the seed of fine-tuning."""

    name: str
    origin: str
    kept: Kept
    seed: int

    @property
    def key(self) -> str:
        """What its row is known by."""
        return f"{self.name} seed {self.seed}"


def jobs(drawn: Sequence[Drawn], setting: Setting) -> list[Job]:
    """All trials in their order; the repeated ones are spread evenly, each with all its seeds at once."""
    apart = max(1, len(drawn) // setting.repeated)
    again = set(range(0, len(drawn), apart)[: setting.repeated])
    return [
        Job(f"c{place:03d}", origin, kept, seed)
        for place, (origin, kept) in enumerate(drawn)
        for seed in (setting.seeds if place in again else setting.seeds[:1])
    ]


class Table:
    """The rows of a table in a file of JSON lines, each of a kind `row`; appended whole, by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, cache_folder() / WORK / f"{path.stem}.lock"

    def rows(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The whole lines, of a kind or all; one that was cut off is not among them."""
        whole = self.path.read_bytes().rpartition(b"\n")[0] if self.path.exists() else b""
        return [row for row in map(json.loads, whole.splitlines()) if kind in (None, row["row"])]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on disk when this returns."""
        with only_one(self.lock):
            self._write([*self.rows(), row])

    def replace(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put these in the place of all rows of a kind."""
        with only_one(self.lock):
            self._write([*(row for row in self.rows() if row["row"] != kind), *rows])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The file anew: a few hundred lines take milliseconds, and it is whole at every moment."""
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        replace_file(self.path, text.encode())


def table_of(network: str) -> Table:
    """The file of a network's table."""
    return Table(SETTINGS[network].folder() / f"{name_of(network)}.jsonl")
