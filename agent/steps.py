"""The parts of a trial, each of one or more stages: what `agent.trial` puts in order.

A part that this host has finished before, for the same candidate, is recalled instead.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from agent.bench import Bench, version_of
from agent.compress.prune import Pruned
from agent.compress.quantise import quantise
from agent.measure.benchmark import CANDIDATE, Sitting
from agent.measure.export import check_parity, export
from agent.measure.exported import Exported, sized
from agent.measure.pace import in_its_usual_state
from agent.measure.samples import FILE as SAMPLES
from agent.measure.samples import write_samples
from agent.stages import Left, Stages, bytes_of
from agent.tasks import baseline as dense
from agent.tasks.training import recalibrate
from agent.watch import Row, Watch
from agent.weights import load_weights
from objective.score import bound, hopeless, values
from objective.sweepfile import F32
from objective.trial import Candidate, Latency, Skipped

DENSE_F32 = "dense_f32"
FILES = ("model.xml", "model.bin")
AGAIN = 1_000_003  # between the seeds of a candidate's sittings


def remembered(bench: Bench, candidate: Candidate) -> Stages:
    """What this host remembers of a candidate on this bench; raises `BadInput` for a group that is not there."""
    channels = (sorted(bench.space.kept(candidate.ratios).items()), candidate.importance, candidate.ranking)
    return Stages(bench.baseline.sha256, channels, candidate.seed, sorted(bench.device.to_json().items()))


def measured(network: nn.Module, bench: Bench, seed: int, folder: Path, watch: Watch, stages: Stages) -> Latency:
    """The latency of a network that is not trained yet, as it would ship, against the dense one's; samples in `folder`.

    Energy is part of it where the sweep asks for it and this host can tell.
    """
    about = (*_deployment(bench), bench.against, bench.seconds_to_measure, bench.meter and bench.meter.source)
    samples = {SAMPLES: folder / SAMPLES}
    if left := stages.recall("measure", *about):
        _written(samples, left)
        return Latency.from_json(left.value)
    with watch.during("export"):
        untrained = bench.deploy(network, folder, "untrained", rough=True)
    with watch.during("measure"):
        settings = (bench.baseline.sha256, sorted(bench.device.to_json().items()), *_deployment(bench), bench.against)
        # Of one candidate the rounds of each sitting run in another order.
        sitting = in_its_usual_state(lambda before: _compared(untrained, bench, seed + AGAIN * before), *settings)
        write_samples(sitting, folder / SAMPLES)
        stages.keep("measure", *about, value=sitting.latency.to_json(), arrays=bytes_of(samples))
    return sitting.latency


def _compared(model: Exported, bench: Bench, seed: int) -> Sitting:
    """At another precision than f32 the dense network at f32 sits beside, for people who deploy that one today.

    Unless the ratio is to that one anyhow.
    """
    beside = {} if F32 in (bench.precision, bench.against) else {DENSE_F32: bench.dense_f32}
    reference, runner = bench.reference
    sitting = bench.sit(
        {CANDIDATE: model, **beside},
        reference,
        runner=runner,
        runners={CANDIDATE: bench.runner, **dict.fromkeys(beside, bench.runner_f32)},
        device=bench.device,
        time_limit_s=bench.seconds_to_measure,
        seed=seed,
        meter=bench.meter,
    )
    latency = sitting.latency
    precision = "int8" if bench.precision == "int8" else latency.precision
    ratio = latency.ratio / sitting.latencies[DENSE_F32].ratio if beside else None
    changed = {CANDIDATE: replace(latency, precision=precision, ratio_f32=ratio)}
    return replace(sitting, latencies={**sitting.latencies, **changed})


def skipped(candidate: Candidate, bench: Bench, pruned: Pruned, latency: Latency, watch: Watch) -> Skipped | None:
    """The end of a trial that could not beat the sweep's best so far, at the fastest that its latency may really be."""
    incumbent = watch.incumbent() if bench.skip else None
    best = bound(latency.ratio_lo, bench.goal, _dense_metric(bench), latency.baseline_p50_ms)
    if incumbent is None or not hopeless(best, incumbent, bench.goal):
        return None
    return Skipped(candidate, pruned.kept, latency, best, incumbent, pruned.params, pruned.macs)


def trained(
    network: nn.Module, bench: Bench, candidate: Candidate, latency: Latency, watch: Watch, stages: Stages
) -> dict[str, float]:
    """Train the network in place; returns the validation metric before, as pruned and as recalibrated."""
    task, name, about = bench.task, bench.goal.metric, _training(bench, candidate)
    if left := stages.recall("train", *about):
        load_weights(network, dict(left.arrays))
        network.eval()
        before: dict[str, float] = left.value
        return before
    with watch.during("recalibrate"):
        at_once = task.evaluate(network, "validation")[name]
        recalibrate(task, network)
        before = {"pruned": at_once, "recalibrated": task.evaluate(network, "validation")[name]}
        watch.log({"epoch": 0.0, f"val_{name}": before["recalibrated"], "latency_ratio": latency.ratio})
    with watch.during("train"):
        task.fit(network, bench.budget(candidate), lambda row: watch.rung(_scored(row, bench, latency)))
        watch.check()
        stages.keep("train", *about, value=before, arrays=network.state_dict())
    return before


def _scored(row: Row, bench: Bench, latency: Latency) -> Row:
    """A row of training; with the score that it would come to by its metric, if it has one, for early termination."""
    metric = row.get(f"val_{bench.goal.metric}")
    if metric is None:
        return row
    drop = _dense_metric(bench) - metric
    return {**row, "score": float(values(metric, drop, latency.ratio, bench.goal, latency.baseline_p50_ms))}


def deployed(
    network: nn.Module, bench: Bench, candidate: Candidate, folder: Path, watch: Watch, stages: Stages
) -> tuple[Exported, float, dict[str, float]]:
    """The trained network as it ships, how exactly its f32 export computes what torch does, and the metric by split.

    Where it ships at another precision than f32, "trained" is what validation gave before.
    """
    about = (*_training(bench, candidate), *_deployment(bench))
    paths = {name: folder / name for name in FILES}
    if left := stages.recall("deploy", *about):
        _written(paths, left)
        exported = sized(paths["model.xml"], bench.precision, tuple(bench.task.example_input().shape))
        return replace(exported, network=network), left.value["parity"], left.value["found"]
    exported, difference = _exported(network, bench, folder, watch)
    with watch.during("evaluate"):
        found = _judged(exported, network, bench)
        left_behind = {"parity": difference, "found": found}
        stages.keep("deploy", *about, value=left_behind, arrays=bytes_of(paths))
    return exported, difference, found


def _written(paths: Mapping[str, Path], left: Left) -> None:
    """The files that a stage left."""
    for name, path in paths.items():
        path.write_bytes(left.arrays[name].numpy().tobytes())


def _exported(network: nn.Module, bench: Bench, folder: Path, watch: Watch) -> tuple[Exported, float]:
    """An INT8 network rounds: what must compute the same as torch is the f32 export that it is made of."""
    example, whole = bench.task.example_input(), bench.precision != "int8"
    with watch.during("export_final"):
        exported = export(network, example, folder, bench.precision if whole else "f32", "model" if whole else "plain")
    with watch.during("parity"):
        difference = check_parity(exported, network, example)
    if not whole:
        with watch.during("quantise"):
            exported = quantise(exported, bench.task.calibration(), "model")
    return exported, difference


def _judged(exported: Exported, network: nn.Module, bench: Bench) -> dict[str, float]:
    task, name, judged = bench.task, bench.goal.metric, bench.as_deployed(exported, network)
    found = {split: task.evaluate(judged, split)[name] for split in ("validation", "holdout")}
    return found if judged is network else {**found, "trained": task.evaluate(network, "validation")[name]}


def _dense_metric(bench: Bench) -> float:
    return dense.metric(bench.task, bench.baseline, bench.goal.metric)


def _training(bench: Bench, candidate: Candidate) -> tuple[object, ...]:
    """What the trained network depends on besides the candidate's channels and seed."""
    return bench.goal.metric, candidate.epochs, bench.lr, bench.distill


def _deployment(bench: Bench) -> tuple[object, ...]:
    """What the deployed network and its latency depend on besides its channels and weights."""
    maker = version_of("nncf") if bench.precision == "int8" else ""
    return bench.precision, bench.runner.device, bench.runner.precision, sorted(bench.runner.settings().items()), maker
