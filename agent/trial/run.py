"""One trial on one page: a candidate from proposal to score.

Each stage takes what the one before returned. Latency comes first: it does not depend on trained weights, and a
candidate that is too slow to win whatever training makes of it ends there, or at its first rung where a device
elsewhere measures meanwhile. What a stage leaves is kept by content.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.tasks import baseline as dense
from prunefleet.agent.tasks.gradients import backward_of
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.latency import CandidateLatency
from prunefleet.agent.trial.stage_cache import Stages
from prunefleet.agent.trial.stages import deployed, trained
from prunefleet.objective.goals.score import score
from prunefleet.objective.trial import Accuracy, Candidate, Failure, Measurement, Score, Skipped


@dataclass(frozen=True)
class Trial:
    """A trial that came to a score, and what it leaves: the trained network, its export, and how exactly both agree."""

    measurement: Measurement
    score: Score
    network: nn.Module
    exported: Exported
    parity: float


def run_trial(
    candidate: Candidate, context: TrialContext, folder: Path, watch: StageWatch, stages: Stages | None = None
) -> Trial | Skipped | Failure:
    """Try one candidate; its files go to `folder`, and what is in `stages` is not done again.

    Raises `BadInput` where the sweep itself is wrong: an unknown group, a ratio out of range, an unknown metric.
    """
    try:
        return _run(candidate, context, folder, watch, stages or Stages(limit=0))
    except Exception as error:
        return explain(error, watch.stage)


def _run(
    candidate: Candidate, context: TrialContext, folder: Path, watch: StageWatch, stages: Stages
) -> Trial | Skipped:
    name, kept = context.goal.metric, context.space.kept(candidate.ratios)
    dense_metric = dense.metric(context.task, context.baseline, name)

    with watch.during("prune"):
        example, backward = context.task.example_input(), backward_of(context.task, candidate.seed)
        how = (candidate.importance, candidate.seed, candidate.ranking, backward)
        pruned = prune(context.baseline.network, example, context.groups, kept, *how)
    latency = CandidateLatency(pruned.network, context, candidate.seed, folder, watch, stages)
    latency.begin()
    hopeful = latency.hopeful() if latency.known else True
    before = trained(pruned.network, context, candidate, latency, watch, stages) if hopeful else None
    if before is None:
        assert latency.bound is not None and latency.incumbent is not None  # why it is not hopeful
        why = (latency.bound, latency.incumbent)
        return Skipped(candidate, pruned.kept, latency.per_device, *why, pruned.params, pruned.macs)
    exported, difference, found = deployed(pruned.network, context, candidate, folder, watch, stages)

    measurement = Measurement(
        candidate=candidate,
        kept=pruned.kept,
        accuracy=Accuracy(name, found["validation"], found["holdout"], None, **before, trained=found.get("trained")),
        metric_drop=dense_metric - found["validation"],
        latencies=latency.per_device,
        params=pruned.params,
        macs=pruned.macs,
        size_bytes=exported.size_bytes,
    )
    return Trial(measurement, score(measurement, context.goal), pruned.network, exported, difference)
