"""What the bench of trials measured: a line for each trial, and what the lines say together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from prunefleet.agent.answer.controls import Point, against_uniform
from prunefleet.agent.tasks.metrics import metric as metric_of
from prunefleet.agent.trial.latency import DENSE_F32
from prunefleet.objective.goals.stats import OfMeans, bootstrap_interval, paired_bootstrap_difference

from studies.trials.passes import LATENCY, LONG, NAMES, SHORT, choice, done, jobs
from studies.trials.study import DENSE, unpacked

Floats = NDArray[np.float64]
Line = dict[str, Any]
RESAMPLES = 2000


def lines(network: str) -> list[Line]:
    """A line for each trial that is done, as short and then as long fine-tuning; the dense network at each sitting."""
    kept = choice(network)["kept"]
    short, longer, timed = (done(network, part) for part in (SHORT, LONG, LATENCY))
    found = [line for job in jobs(network, kept) for line in _lines(job, short, timed)]
    found += [line for job in jobs(network, kept, LONG) if job.epochs for line in _lines(job, longer, {})]
    if DENSE in short:
        seeds = sorted({job.seed for job in jobs(network, kept)})
        found += [line for seed in seeds for line in _dense(network, seed, short[DENSE], timed)]
    return found


def _lines(job: Any, known: Mapping[str, Any], timed: Mapping[str, Any]) -> Iterator[Line]:
    if job.key not in known:
        return
    common = {"network": job.network, "name": job.name, "how": job.name.split()[0], "kept": dict(job.kept)}
    common |= {"seed": job.seed, "epochs": job.epochs}
    yield from _by_precision(common, job.name, job.seed, known[job.key], timed)


def _dense(network: str, seed: int, found: Mapping[str, Any], timed: Mapping[str, Any]) -> Iterator[Line]:
    common = {"network": network, "name": DENSE, "how": DENSE, "seed": seed, "epochs": 0}
    yield from _by_precision(common, DENSE, seed, found, timed)


def _by_precision(
    common: Line, name: str, seed: int, found: Mapping[str, Any], timed: Mapping[str, Any]
) -> Iterator[Line]:
    told = {key: value for key, value in found.items() if key != "precisions"}
    for precision, judged in found["precisions"].items():
        yield {**common, "precision": precision, **told, **judged, **_timing(timed, f"seed {seed} {precision}", name)}


def _timing(timed: Mapping[str, Any], key: str, name: str) -> Line:
    if key not in timed:
        return {"latency": None}
    sitting = timed[key]
    own = sitting["latencies"][name]
    beside = sitting["latencies"].get(DENSE_F32)
    ratio = own["ratio"] / beside["ratio"] if beside else own["ratio"]
    return {
        "latency": own | {"ratio_f32": ratio},
        "slots_ms": sitting["slots_ms"][name],
        "loads": sitting["loads"],
        "device": sitting["device"],
    }


@dataclass(frozen=True)
class Group:
    """One candidate at one precision, with all its seeds."""

    name: str
    metric: str
    rows: Sequence[Line]

    def mean(self, split: str, metric: str | None = None) -> float:
        """A metric's mean over the seeds."""
        return float(np.mean([row["quality"][split][metric or self.metric] for row in self.rows]))

    def spread(self, split: str) -> tuple[float, float]:
        """The lowest and the highest of the seeds."""
        found = [row["quality"][split][self.metric] for row in self.rows]
        return min(found), max(found)

    @cached_property
    def examples(self) -> Floats:
        """Figures of each test example, [n, k], averaged over the seeds."""
        return np.mean([unpacked(row["examples"]["test"]) for row in self.rows], axis=0)

    @property
    def quality(self) -> OfMeans:
        """The mean over the seeds on test."""
        return OfMeans(self.examples, value(self.metric))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over the seeds on test, by a bootstrap of the examples."""
        return bootstrap_interval(self.quality, n=RESAMPLES)

    @property
    def timed(self) -> list[Mapping[str, Any]]:
        """The latencies of the seeds that are measured."""
        return [row["latency"] for row in self.rows if row["latency"]]

    def ratio(self, key: str = "ratio") -> float:
        """The mean of the seeds' latency ratios."""
        return float(np.mean([each[key] for each in self.timed]))

    def ends(self) -> tuple[float, float]:
        """The lowest and the highest end of the seeds' 95 % intervals of the latency ratio."""
        return min(each["ratio_lo"] for each in self.timed), max(each["ratio_hi"] for each in self.timed)

    @property
    def slots(self) -> Floats:
        """Milliseconds of the rounds of all sittings, in order."""
        return np.concatenate([row["slots_ms"] for row in self.rows if row["latency"]])


def value(metric: str) -> Any:
    """What makes the metric of the means of examples' figures."""
    return lambda means: metric_of(metric).value(torch.from_numpy(means)).double().numpy()


def whole(found: Sequence[Line], names: Collection[str]) -> list[Line]:
    """The lines of seeds with which all of these candidates are trained, so that all are judged alike."""
    there = {(line["name"], line["seed"]) for line in found}
    return [line for line in found if all((name, line["seed"]) in there for name in names)]


def grouped(found: Sequence[Line], metric: str, precision: str, epochs: float) -> dict[str, Group]:
    """The candidates by name, the dense network first, then from the slowest; of these epochs alone."""
    own = [row for row in found if row["precision"] == precision and row["epochs"] in (0, epochs)]
    groups = {name: Group(name, metric, [row for row in own if row["name"] == name]) for name in (DENSE, *NAMES)}
    there = {name: group for name, group in groups.items() if group.rows}
    slowness = {name: -group.ratio() if group.timed else 0.0 for name, group in there.items()}
    return {name: there[name] for name in sorted(there, key=lambda name: (name != DENSE, slowness[name]))}


def against(groups: Mapping[str, Group], name: str) -> dict[str, dict[str, float]]:
    """A chosen candidate against the line through the dense network and the uniform ones."""
    points = {key: Point(group.quality, group.slots) for key, group in groups.items()}
    rungs = [point for key, point in points.items() if key.startswith("uniform")]
    return against_uniform(points[name], rungs, points[DENSE])


def lost(before: Group, after: Group) -> tuple[float, float, float]:
    """What the second has less than the first on test, with its paired 95 % interval."""
    return paired_bootstrap_difference(before.quality, after.quality, n=RESAMPLES)


def ranks(short: Sequence[float], longer: Sequence[float]) -> dict[str, float]:
    """Spearman's rho and Kendall's tau-b."""
    return {"rho": float(spearmanr(short, longer).statistic), "tau": float(kendalltau(short, longer).statistic)}


def rank_interval(short: Sequence[float], longer: Sequence[float], seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of both by a bootstrap of the candidates; draws whose values are all alike are left out."""
    random, count = np.random.default_rng(seed), len(short)
    one, other, drawn = np.array(short), np.array(longer), []
    for _ in range(RESAMPLES):
        rows = random.integers(0, count, count)
        if np.ptp(one[rows]) and np.ptp(other[rows]):
            drawn.append(ranks(one[rows], other[rows]))
    ends = {key: np.percentile([each[key] for each in drawn], [2.5, 97.5]) for key in ("rho", "tau")}
    return {key: (float(low), float(high)) for key, (low, high) in ends.items()}


def noise(figures: Sequence[Floats], metric: str, seed: int = 0) -> dict[str, float]:
    """The mean correlation of the same networks judged twice, each time on other examples: two independent bootstraps.

    `figures`: of each network on the split, [n, k]. What no longer training could exceed, were evaluation all.
    """
    random, count, drawn = np.random.default_rng(seed), len(figures[0]), []
    for _ in range(RESAMPLES // 10):
        rows = [random.integers(0, count, count) for _ in range(2)]
        judged = [[float(value(metric)(each[row].mean(0))) for each in figures] for row in rows]
        drawn.append(ranks(*judged))
    return {key: float(np.mean([each[key] for each in drawn])) for key in ("rho", "tau")}


def swapped(short: Sequence[Line], longer: Sequence[Line], metric: str) -> dict[str, int]:
    """Pairs of candidates, those in another order after longer training, and those of these that evaluation could swap.

    It could where the paired 95 % interval on holdout of the difference holds 0 after short or after long training.
    """
    told = {"pairs": 0, "swapped": 0, "noise": 0}
    for i, j in combinations(range(len(short)), 2):
        both = [[OfMeans(_figures(each[row]), value(metric)) for row in (i, j)] for each in (short, longer)]
        found = [paired_bootstrap_difference(one, other, n=500) for one, other in both]
        differ = found[0][0] * found[1][0] < 0
        told["pairs"] += 1
        told["swapped"] += differ
        told["noise"] += differ and any(low <= 0 <= high for _, low, high in found)
    return told


def _figures(row: Line) -> Floats:
    return unpacked(row["examples"]["holdout"])
