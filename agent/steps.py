"""The parts of a trial, each of one or more stages: what `agent.trial` puts in order.

A part that this host has finished before, for the same candidate, is recalled instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

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
from agent.place import Place, ask_ahead
from agent.stages import Left, Stages, bytes_of
from agent.tasks import baseline as dense
from agent.tasks.training import recalibrate
from agent.watch import Row, Watch
from agent.weights import load_weights
from objective.score import bound, hopeless, values_on_all
from objective.sweepfile import F32
from objective.trial import Candidate, Latency, Skipped, worst

DENSE_F32 = "dense_f32"
FILES = ("model.xml", "model.bin")
AGAIN = 1_000_003  # between the seeds of a candidate's sittings


def remembered(bench: Bench, candidate: Candidate) -> Stages:
    """What this host remembers of a candidate on this bench; raises `BadInput` for a group that is not there."""
    channels = (sorted(bench.space.kept(candidate.ratios).items()), candidate.importance, candidate.ranking)
    return Stages(bench.baseline.sha256, channels, candidate.seed)


def measured(
    network: nn.Module, bench: Bench, seed: int, folder: Path, watch: Watch, stages: Stages
) -> tuple[Latency, ...]:
    """The latency on each device of a network that is not trained yet, as it would ship, against the dense one's.

    Samples come to `folder`. Energy is part of it where the sweep asks for it and the device can tell.
    """
    left = [stages.recall("measure", *_sitting(bench, place)) for place in bench.places]
    missing = [place for place, each in zip(bench.places, left, strict=True) if not each]
    measured_now: list[Latency] = []
    if missing:
        with watch.during("export"):
            untrained = bench.deploy(network, folder, "untrained", rough=True)
        with watch.during("measure"):
            models, options = _models(untrained, bench), partial(_options, bench, seed)
            ask_ahead(missing, models, bench.reference, options)
            measured_now = [_kept(place, models, bench, options, folder, stages) for place in missing]
    fresh = iter(measured_now)
    return tuple(
        _recalled(each, folder / bench.samples(place)) if each else next(fresh)
        for place, each in zip(bench.places, left, strict=True)
    )


def _recalled(left: Left, samples: Path) -> Latency:
    _written({SAMPLES: samples}, left)
    return Latency.from_json(left.value)


def _kept(
    place: Place,
    models: Mapping[str, Exported],
    bench: Bench,
    options: Callable[[Place], dict[str, Any]],
    folder: Path,
    stages: Stages,
) -> Latency:
    """Measured at one place, samples written, both remembered."""
    how, samples = options(place), folder / bench.samples(place)

    def sit(before: int) -> Sitting:
        # Of one candidate the rounds of each sitting run in another order.
        return _told(place.sit(models, bench.reference, **how | {"seed": how["seed"] + AGAIN * before}), bench)

    settings = (bench.baseline.sha256, *_deployment(bench, place), bench.against)
    sitting = in_its_usual_state(sit, *settings)
    write_samples(sitting, samples)
    stages.keep(
        "measure", *_sitting(bench, place), value=sitting.latency.to_json(), arrays=bytes_of({SAMPLES: samples})
    )
    return sitting.latency


def _models(candidate: Exported, bench: Bench) -> dict[str, Exported]:
    """At another precision than f32 the dense network at f32 sits beside, for people who deploy that one today.

    Unless the ratio is to that one anyhow.
    """
    beside = {} if F32 in (bench.precision, bench.against) else {DENSE_F32: bench.dense_f32}
    return {CANDIDATE: candidate, **beside}


def _options(bench: Bench, seed: int, place: Place) -> dict[str, Any]:
    """How a place measures those."""
    return {
        "runner": place.at(bench.reference.precision).runner,
        "runners": {CANDIDATE: place.runner, DENSE_F32: place.at(F32).runner},
        "device": place.device,
        "time_limit_s": bench.seconds_to_measure,
        "seed": seed,
        "meter": place.meter,
    }


def _told(sitting: Sitting, bench: Bench) -> Sitting:
    """A sitting whose candidate says the precision that it ships at, and its ratio to the dense network at f32."""
    latency, beside = sitting.latency, sitting.latencies.get(DENSE_F32)
    precision = "int8" if bench.precision == "int8" else latency.precision
    changed = replace(latency, precision=precision, ratio_f32=latency.ratio / beside.ratio if beside else None)
    return replace(sitting, latencies={**sitting.latencies, CANDIDATE: changed})


def skipped(
    candidate: Candidate, bench: Bench, pruned: Pruned, latencies: tuple[Latency, ...], watch: Watch
) -> Skipped | None:
    """The end of a trial that could not beat the sweep's best so far, at the fastest that its latency may really be."""
    incumbent, dense = watch.incumbent() if bench.skip else None, _dense_metric(bench)
    best = min(bound(each.ratio_lo, bench.goal, dense, each.baseline_p50_ms) for each in latencies)
    if incumbent is None or not hopeless(best, incumbent, bench.goal):
        return None
    return Skipped(candidate, pruned.kept, latencies, best, incumbent, pruned.params, pruned.macs)


def trained(
    network: nn.Module, bench: Bench, candidate: Candidate, latencies: Sequence[Latency], watch: Watch, stages: Stages
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
        watch.log({"epoch": 0.0, f"val_{name}": before["recalibrated"], "latency_ratio": worst(latencies).ratio})
    with watch.during("train"):
        task.fit(network, bench.budget(candidate), lambda row: watch.rung(_scored(row, bench, latencies)))
        watch.check()
        stages.keep("train", *about, value=before, arrays=network.state_dict())
    return before


def _scored(row: Row, bench: Bench, latencies: Sequence[Latency]) -> Row:
    """A row of training; with the score that it would come to by its metric, if it has one, for early termination."""
    metric = row.get(f"val_{bench.goal.metric}")
    if metric is None:
        return row
    timed = [(each.ratio, each.baseline_p50_ms) for each in latencies]
    return {**row, "score": float(values_on_all(metric, _dense_metric(bench) - metric, timed, bench.goal))}


def deployed(
    network: nn.Module, bench: Bench, candidate: Candidate, folder: Path, watch: Watch, stages: Stages
) -> tuple[Exported, float, dict[str, float]]:
    """The trained network as it ships, how exactly its f32 export computes what torch does, and the metric by split.

    Where it ships at another precision than f32, "trained" is what validation gave before.
    """
    about = (*_training(bench, candidate), *_deployment(bench, bench.places[0]))
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


def _deployment(bench: Bench, place: Place) -> tuple[object, ...]:
    """What the deployed network and its latency depend on besides its channels and weights."""
    maker, runner = version_of("nncf") if bench.precision == "int8" else "", place.runner
    return bench.precision, runner.device, runner.precision, sorted(runner.settings().items()), maker, _identity(place)


def _sitting(bench: Bench, place: Place) -> tuple[object, ...]:
    """What a latency depends on besides its channels and the dense network."""
    energy = place.meter and place.meter.source
    return *_deployment(bench, place), bench.against, bench.seconds_to_measure, energy


def _identity(place: Place) -> object:
    return sorted(place.device.to_json().items())
