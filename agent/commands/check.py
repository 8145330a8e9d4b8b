"""`prunefleet check`: everything that a sweep relies on, one line each, and one miniature trial of its machinery."""

import os
import re
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunefleet.agent.compress.groups import Group, find_groups
from prunefleet.agent.compress.merge import MergedSpace
from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.energy.sources import find_meter
from prunefleet.agent.measure.remote.choice import queue_of
from prunefleet.agent.measure.runners.base import Runner
from prunefleet.agent.tasks.baseline import Baseline
from prunefleet.agent.tasks.code.carried import NOT_UPLOADED, UPLOADED, folder_of, standing
from prunefleet.agent.tasks.code.source import code_of
from prunefleet.agent.tasks.registry import module_of
from prunefleet.agent.tasks.task import SPLITS, Task, digest, interval_by, quality_of
from prunefleet.agent.tracking.probe import require_server
from prunefleet.agent.trial.context import TrialContext, export_dense, loaded, space_of, trial_threads
from prunefleet.agent.trial.network import calibration_size, check_network, made
from prunefleet.agent.trial.places import MeasuringPlace, measured_on
from prunefleet.agent.trial.request import Request, from_sweep
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.objective import runners
from prunefleet.objective.devices import LOCAL
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.stats import Recomputed, bootstrap_interval
from prunefleet.objective.profiles.space import Space
from prunefleet.objective.sweepfile import F32, UPLOADS, block, choices, read_sweep_file
from prunefleet.objective.trial import Device, Failure, TrialFailed
from prunefleet.objective.wandb_login import base_url, is_named

NO_SERVER = "WANDB_BASE_URL, WANDB_API_KEY and `wandb login` name none; `prunefleet up` starts its own"
EPOCHS = 0.02
EXAMPLES = 500
RESAMPLED = 20
MEASURED_S = 1.0
OLD_SEARCH = re.compile(r"^[ \t]*((?:from|import)[ \t]+infra\b[^#\n]*)", re.MULTILINE)


class Brief:
    """A task with its evaluation cut short: all else is the task's own."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def evaluate(self, network: torch.nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """The task's own, on a few examples."""
        return self._task.evaluate(network, split, min(limit or EXAMPLES, EXAMPLES))


@dataclass
class Checks:
    """Prints one line for each part that is well, with what was found."""

    watch: StageWatch

    @contextmanager
    def part(self, name: str) -> Iterator[list[str]]:
        """Runs a part; what it appends to the list is told behind its name."""
        found: list[str] = []
        began = time.perf_counter()
        with self.watch.during(name):
            yield found
        print(f"ok  {name}: {', '.join(found)} ({time.perf_counter() - began:.1f} s)", flush=True)


def check(sweep_file: Path) -> int:
    """Check a sweep file and what it needs on this host. Raises `BadInput` or `TrialFailed` at the first fault."""
    torch.set_num_threads(trial_threads())
    checks = Checks(StageWatch())
    try:
        _check(sweep_file, checks)
    except (BadInput, TrialFailed, ModuleNotFoundError):
        raise
    except Exception as error:  # of the task's own code
        failure, last = explain(error, checks.watch.stage), traceback.extract_tb(error.__traceback__)[-1]
        told = f"{failure.message} ({Path(last.filename).name}, line {last.lineno})"
        raise TrialFailed(replace(failure, message=told)) from error
    print(f"{sweep_file}: all is well", flush=True)
    return 0


def _check(sweep_file: Path, checks: Checks) -> None:
    with checks.part("file") as found:
        config = read_sweep_file(sweep_file)
        _check_scheduler(sweep_file.parent, config.get("scheduler"))
        request = from_sweep(config, sweep_file)
        found += [str(sweep_file), f"{request.goal.kind} on {request.goal.metric}"]
    if line := _searched_by(config):
        print(line, flush=True)
    with checks.part("upload") as found:
        found += [UPLOADS[request.upload]]
    request = _here(checks, request)
    task, network = _task(checks, request, _code(checks, request))
    device, runner = _device(checks, request, config, task, network)
    groups, space = _groups(checks, task, network, config, device, request)
    _server(checks)
    with tempfile.TemporaryDirectory() as folder, _cache_in(Path(folder)):
        with checks.watch.during("evaluate"):
            baseline = _untrained(task, network, Path(folder))
        _interval(checks, task, network, request.goal.metric)
        brief: Any = Brief(task)
        dense, plain = (export_dense(baseline, task, each) for each in (request.candidate.precision, "f32"))
        places = (MeasuringPlace(device, runner, find_meter(request.energy)),)
        recipe = (request.lr, request.distill, False, MEASURED_S)
        context = TrialContext(brief, baseline, groups, space, request.goal, places, dense, plain, *recipe)
        _miniature(checks, request, context, Path(folder))


def _searched_by(config: Mapping[str, Any]) -> str | None:
    """Tell that a metric is not the score: our search goes by the objective, W&B's own by this metric."""
    metric = config.get("metric")
    named = metric if isinstance(metric, Mapping) else {}
    name, goal = named.get("name"), named.get("goal", "minimize")
    if config.get("method") != "bayes" or (name, goal) == ("score", "maximize"):
        return None
    theirs = f"would {goal} {name}" if name else "has nothing to go by"
    return f"--  metric: write `metric: {{name: score, goal: maximize}}`; without it W&B's own search {theirs}"


def _check_scheduler(folder: Path, scheduler: object) -> None:
    """Raise `BadInput` where the scheduler's source beside the sweep file imports the search as version 0.1 did."""
    source = scheduler.get("source") if isinstance(scheduler, Mapping) else None
    path = folder / source if isinstance(source, str) else None
    if path is None or not path.is_file():
        return
    if old := OLD_SEARCH.search(path.read_text(errors="replace")):
        remedy = f"write `from prunefleet import candidate, study` in it: version 0.1 said `{old[1].strip()}`"
        raise BadInput("scheduler.source", source, remedy)


def _here(checks: Checks, request: Request) -> Request:
    """Devices elsewhere are looked for; the miniature trial then measures on this host alone."""
    elsewhere = [device for device in request.devices if device != LOCAL]
    if not elsewhere:
        return request
    with checks.part("measure.device") as found:
        if not is_named():
            remedy = "write local, or set WANDB_BASE_URL and WANDB_API_KEY to the server that knows this device"
            raise BadInput("measure.device", elsewhere[0], remedy)
        project = f"{require_server()}/{os.environ.get('WANDB_PROJECT', 'prunefleet')}"
        found += [f"{device} takes measurements from {queue_of(project, device).path}" for device in elsewhere]
        found += ["of all devices the slowest counts"] if len(request.devices) > 1 else []
    here = replace(request, devices=(LOCAL,))
    return here if LOCAL in request.devices else replace(here, runner=runners.DEFAULT, energy=None)


def _code(checks: Checks, request: Request) -> Path | None:
    """The folder with the sweep's code, where that is here and is not this host's own; nothing is fetched."""
    own, folder = code_of(module_of(request.task)), None
    if not own and not request.code:
        return None
    with checks.part("code") as found:
        if request.code:
            there = standing(request.task, request.code)
            found += [there.told] if there.here else [there.told, "what is checked is this host's own"]
            folder = folder_of(there)
        elif own:
            found += [own.described(), UPLOADED if request.upload == "all" else NOT_UPLOADED]
    return folder


def _task(checks: Checks, request: Request, folder: Path | None) -> tuple[Task, torch.nn.Module]:
    with checks.part("task") as found:
        task = loaded(request, folder, at_fault=True)
        if request.goal.metric not in task.metrics:
            raise BadInput("objective.metric", request.goal.metric, f"{task.name} gives {', '.join(task.metrics)}")
        network = made(task)
        found += [task.name, f"metrics {', '.join(task.metrics)}", interval_by(task, request.goal.metric)]
    with checks.part("data") as found:
        shape = tuple(task.example_input().shape)
        found += [f"input {shape}", f"{calibration_size(task)} examples to calibrate with"]
    return task, network


def _device(
    checks: Checks, request: Request, config: Mapping[str, Any], task: Task, network: torch.nn.Module
) -> tuple[Device, Runner]:
    with checks.part("device") as found:
        device, runner = measured_on(request)
        found += [device.cpu, f"{device.cores} cores", f"{request.runner} measures at {runner.precision}"]
        found += _compared(block(config["parameters"], "measure"))
        if request.energy:
            found += [f"energy from {request.energy}" if find_meter(request.energy) else f"no {request.energy} here"]
        found += [f"the network returns {check_network(task, network, runner, request.candidate.precision)}"]
    return device, runner


def _compared(measure: Mapping[str, Any]) -> list[str]:
    """What candidates of several precisions are held against; nothing where there is one."""
    precisions = choices(measure.get("precision", {"value": F32}))
    if len(precisions) < 2:
        return []
    if "against" not in measure and F32 in precisions:
        against = "at f32, for which `prunefleet plan` and `up` add measure.against"
    else:
        against = "at f32" if measure.get("against") == {"value": F32} else "at its own precision"
    return [f"each of {', '.join(precisions)} against the dense network {against}"]


def _groups(
    checks: Checks, task: Task, network: torch.nn.Module, config: dict[str, Any], device: Device, request: Request
) -> tuple[tuple[Group, ...], MergedSpace]:
    with checks.part("groups") as found:
        groups = find_groups(network, task.example_input())
        space = space_of(groups, [device], request.candidate.precision)
        if "ratio" in config["parameters"]:
            known = {**space.widths, **space.searched.widths}
            Space.from_parameters(config["parameters"]["ratio"], known, space.groups[0].step)
        found += [f"{group.name} {group.width}" for group in space.searched.groups]
    return groups, space


def _server(checks: Checks) -> None:
    if not is_named():
        print(f"--  server: {NO_SERVER}", flush=True)
        return
    with checks.part("server") as found:
        found += [base_url(), f"user {require_server()}"]


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Keep what an untrained network leaves out of the real cache."""
    before = os.environ.get("PRUNEFLEET_CACHE")
    os.environ["PRUNEFLEET_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("PRUNEFLEET_CACHE")
        if before is not None:
            os.environ["PRUNEFLEET_CACHE"] = before


def _untrained(task: Task, network: torch.nn.Module, folder: Path) -> Baseline:
    metrics = {split: task.evaluate(network, split, EXAMPLES) for split in SPLITS[:2]}
    return Baseline(network.eval(), metrics, digest(str(folder)), folder / "none", "untrained", 0.0)


def _interval(checks: Checks, task: Task, network: torch.nn.Module, metric: str) -> None:
    """Compute a metric on some resamples, where that is how its interval comes: the answer needs many."""
    if not hasattr(task, "resampled"):
        return
    with checks.part("interval") as found:
        quality = quality_of(task, network, "validation", metric)
        if not isinstance(quality, Recomputed):
            found += [f"{metric} is not resampled"]
            return
        began = time.perf_counter()
        low, high = bootstrap_interval(quality, n=RESAMPLED)
        seconds = (time.perf_counter() - began) * quality.resamples / RESAMPLED
        found += [f"{metric} {low:.3f} to {high:.3f} untrained", f"{quality.count} examples"]
        found += [f"{seconds:.1f} s for the {quality.resamples} resamples of a network"]


def _miniature(checks: Checks, request: Request, context: TrialContext, folder: Path) -> None:
    with checks.part("trial") as found:
        kept = context.space.uniform_ladder()[-1]
        candidate = replace(request.candidate, ratios=context.space.ratios(kept), epochs=EPOCHS)
        result = run_trial(candidate, context, folder, StageWatch())
        if isinstance(result, Failure):
            raise TrialFailed(result)
        assert isinstance(result, Trial)  # nothing is skipped here
        ratio = result.measurement.worst.ratio
        found += [f"latency ratio {ratio:.2f} at the smallest uniform size", f"parity {result.parity:.0e}"]
