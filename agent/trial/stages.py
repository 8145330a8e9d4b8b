"""The parts of a trial, each of one or more stages: what `prunefleet.agent.trial.run` puts in order.

A part that this host has finished before, for the same candidate, is recalled instead.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from prunefleet.agent.compress.quantise import quantise
from prunefleet.agent.compress.weights import load_weights
from prunefleet.agent.host.progress import Row, StageWatch
from prunefleet.agent.measure.export import check_parity, export
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.tasks.training import recalibrate
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.latency import CandidateLatency, deployment
from prunefleet.agent.trial.stage_cache import Left, Stages, bytes_of
from prunefleet.objective.trial import Candidate

FILES = ("model.xml", "model.bin")


def remembered(context: TrialContext, candidate: Candidate) -> Stages:
    """What this host remembers of a candidate in this context; raises `BadInput` for a group that is not there."""
    channels = (sorted(context.space.kept(candidate.ratios).items()), candidate.importance, candidate.ranking)
    return Stages(context.baseline.sha256, channels, candidate.seed)


def trained(
    network: nn.Module,
    context: TrialContext,
    candidate: Candidate,
    latency: CandidateLatency,
    watch: StageWatch,
    stages: Stages,
) -> dict[str, float] | None:
    """Train the network in place; returns the validation metric before, as pruned and as recalibrated.

    Devices elsewhere may measure until the first rung, which is scored. None where it turns out that it cannot win.
    """
    task, name, about = context.task, context.goal.metric, _training(context, candidate)
    if left := stages.recall("train", *about):
        load_weights(network, dict(left.arrays))
        network.eval()
        recalled: dict[str, float] = left.value
        return recalled if latency.hopeful() else None
    with watch.during("recalibrate"):
        at_once = task.evaluate(network, "validation")[name]
        recalibrate(task, network)
        before = {"pruned": at_once, "recalibrated": task.evaluate(network, "validation")[name]}
        watch.log({"epoch": 0.0, f"val_{name}": before["recalibrated"], **latency.row()})

    def rung(row: Row) -> bool:
        metric = row.get(f"val_{name}")
        if metric is None:
            return watch.rung(row)
        return latency.hopeful() and watch.rung({**row, **latency.scored(metric)})

    with watch.during("train"):
        task.fit(network, context.budget(candidate), rung)
        watch.check()
        if not latency.hopeful():
            return None
        stages.keep("train", *about, value=before, arrays=network.state_dict())
    return before


def deployed(
    network: nn.Module, context: TrialContext, candidate: Candidate, folder: Path, watch: StageWatch, stages: Stages
) -> tuple[Exported, float, dict[str, float]]:
    """The trained network as it ships, how exactly its f32 export computes what torch does, and the metric by split.

    Where it ships at another precision than f32, "trained" is what validation gave before.
    """
    about = (*_training(context, candidate), *deployment(context, context.places[0]))
    paths = {name: folder / name for name in FILES}
    if left := stages.recall("deploy", *about):
        _written(paths, left)
        exported = sized(paths["model.xml"], context.precision, tuple(context.task.example_input().shape))
        return replace(exported, network=network), left.value["parity"], left.value["found"]
    exported, difference = _exported(network, context, folder, watch)
    with watch.during("evaluate"):
        found = _evaluated(exported, network, context)
        left_behind = {"parity": difference, "found": found}
        stages.keep("deploy", *about, value=left_behind, arrays=bytes_of(paths))
    return exported, difference, found


def _written(paths: Mapping[str, Path], left: Left) -> None:
    """The files that a stage left."""
    for name, path in paths.items():
        path.write_bytes(left.arrays[name].numpy().tobytes())


def _exported(network: nn.Module, context: TrialContext, folder: Path, watch: StageWatch) -> tuple[Exported, float]:
    """An INT8 network rounds: what must compute the same as torch is the f32 export that it is made of."""
    example, whole = context.task.example_input(), context.precision != "int8"
    with watch.during("export_final"):
        exported = export(
            network, example, folder, context.precision if whole else "f32", "model" if whole else "plain"
        )
    with watch.during("parity"):
        difference = check_parity(exported, network, example)
    if not whole:
        with watch.during("quantise"):
            exported = quantise(exported, context.task.calibration(), "model")
    return exported, difference


def _evaluated(exported: Exported, network: nn.Module, context: TrialContext) -> dict[str, float]:
    task, name, shipped = context.task, context.goal.metric, context.as_deployed(exported, network)
    found = {split: task.evaluate(shipped, split)[name] for split in ("validation", "holdout")}
    return found if shipped is network else {**found, "trained": task.evaluate(network, "validation")[name]}


def _training(context: TrialContext, candidate: Candidate) -> tuple[object, ...]:
    """What the trained network depends on besides the candidate's channels and seed."""
    return context.goal.metric, candidate.epochs, context.lr, context.distill
