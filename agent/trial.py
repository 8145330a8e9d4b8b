"""One trial on one page: a candidate from proposal to score.

Each stage takes what the one before returned. Latency comes first: it does not depend on trained weights.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from agent.compress.groups import Group
from agent.compress.prune import prune
from agent.failures import explain
from agent.measure.benchmark import compare
from agent.measure.energy import Meter
from agent.measure.export import Exported, check_parity, export
from agent.measure.runners import Runner
from agent.measure.samples import FILE as SAMPLES
from agent.measure.samples import write_samples
from agent.tasks import baseline as dense
from agent.tasks.baseline import Baseline
from agent.tasks.gradients import backward_of
from agent.tasks.task import Budget, Task
from agent.tasks.training import recalibrate
from agent.watch import Watch
from objective.goal import Goal
from objective.score import score
from objective.space import Space
from objective.trial import Accuracy, Candidate, Device, Failure, Measurement, Score


@dataclass(frozen=True)
class Bench:
    """What a trial needs besides its candidate: the same for all trials of a sweep on this host."""

    task: Task
    baseline: Baseline
    groups: tuple[Group, ...]
    space: Space
    goal: Goal
    device: Device
    runner: Runner
    dense: Exported
    lr: float | None = None
    distill: bool = False
    seconds_to_measure: float = 3.0
    meter: Meter | None = None

    def budget(self, candidate: Candidate) -> Budget:
        """How a candidate is fine-tuned: by its own epochs and seed, the dense network teaching where that is asked."""
        teacher = self.baseline.network if self.distill else None
        return Budget(candidate.epochs, self.lr, candidate.seed, teacher)


@dataclass(frozen=True)
class Trial:
    """A trial that came to a score, and what it leaves: the trained network, its export, and how exactly both agree."""

    measurement: Measurement
    score: Score
    network: nn.Module
    exported: Exported
    parity: float


def run_trial(candidate: Candidate, bench: Bench, folder: Path, watch: Watch) -> Trial | Failure:
    """Try one candidate; its files go to `folder`.

    Raises `BadInput` where the sweep itself is wrong: an unknown group, a ratio out of range, an unknown metric.
    """
    try:
        return _run(candidate, bench, folder, watch)
    except Exception as error:
        return explain(error, watch.stage)


def _run(candidate: Candidate, bench: Bench, folder: Path, watch: Watch) -> Trial:
    task, example, name = bench.task, bench.task.example_input(), bench.goal.metric
    kept = bench.space.kept(candidate.ratios)
    dense_metric = dense.metric(task, bench.baseline, name)

    with watch.during("prune"):
        how = (candidate.importance, candidate.seed, candidate.ranking, backward_of(task, candidate.seed))
        pruned = prune(bench.baseline.network, example, bench.groups, kept, *how)
    with watch.during("export"):
        untrained = export(pruned.network, example, folder, candidate.precision, name="untrained")
    with watch.during("measure"):
        sitting = compare(
            untrained,
            bench.dense,
            runner=bench.runner,
            device=bench.device,
            precision=candidate.precision,
            time_limit_s=bench.seconds_to_measure,
            seed=candidate.seed,
            meter=bench.meter,
        )
        latency = sitting.latency
        write_samples(sitting, folder / SAMPLES)
    with watch.during("recalibrate"):
        at_once = task.evaluate(pruned.network, "validation")
        recalibrate(task, pruned.network)
        recalibrated = task.evaluate(pruned.network, "validation")
        watch.log({"epoch": 0.0, f"val_{name}": recalibrated[name], "latency_ratio": latency.ratio})
    with watch.during("train"):
        task.fit(pruned.network, bench.budget(candidate), watch.rung)
        watch.check()
    with watch.during("evaluate"):
        found = {split: task.evaluate(pruned.network, split)[name] for split in ("validation", "holdout")}
    with watch.during("export_final"):
        exported = export(pruned.network, example, folder, candidate.precision)
    with watch.during("parity"):
        difference = check_parity(exported, pruned.network, example)

    measurement = Measurement(
        candidate=candidate,
        kept=pruned.kept,
        accuracy=Accuracy(name, found["validation"], found["holdout"], None, at_once[name], recalibrated[name]),
        metric_drop=dense_metric - found["validation"],
        latencies=(latency,),
        params=pruned.params,
        macs=pruned.macs,
        size_bytes=exported.size_bytes,
    )
    return Trial(measurement, score(measurement, bench.goal), pruned.network, exported, difference)
