"""The bench of this host for one sweep: task, dense network, groups, device, ready for trials."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from agent.cache import cache_folder, new_folder, only_one
from agent.compress.groups import Group, find_groups, specs
from agent.compress.merge import MergedSpace, merge
from agent.measure.choice import kind, runner_for
from agent.measure.device import channel_step, fingerprint
from agent.measure.energy import find_meter
from agent.measure.export import Exported, export
from agent.measure.runners import Runner
from agent.request import Request
from agent.tasks.baseline import Baseline, Progress, Store, obtain
from agent.tasks.registry import load_task
from agent.trial import Bench
from objective.trial import Device

Stage = Callable[[str], AbstractContextManager[None]]


def prepare(request: Request, store: Store | None, during: Stage, progress: Progress | None = None) -> Bench:
    """The bench that `request` asks for; `during(stage)` is entered for each part.

    Raises `BadInput` where the request cannot be met on any host, or in the stages "data" and "baseline" on this one.
    """
    torch.set_num_threads(trial_threads())
    with during("task"):
        task = load_task(request.task, request.options)
        device, runner = measured_on(request)
    with during("data"):
        example = task.example_input()
    with during("baseline"):
        baseline = obtain(task, store, request.baseline, progress)
    with during("groups"):
        groups = find_groups(baseline.network, example)
        dense = export_dense(baseline, example, device, request.candidate.precision)
    space = space_of(groups, device, request.candidate.precision)
    return Bench(
        task,
        baseline,
        groups,
        space,
        request.goal,
        device,
        runner,
        dense,
        request.lr,
        request.distill,
        meter=find_meter(request.energy),
    )


def measured_on(request: Request) -> tuple[Device, Runner]:
    """This host's device, and what runs networks on it. Raises `BadInput` where the host has not what is asked for."""
    runner = runner_for(request.runner, request.candidate.precision, request.threads)
    return fingerprint(request.device, kind(runner)), runner


def space_of(groups: tuple[Group, ...], device: Device, precision: str) -> MergedSpace:
    """The groups on the device's channel grid, many of them merged into fewer dimensions."""
    return MergedSpace(specs(groups, channel_step(device, precision)), dimensions=merge(groups))


def trial_threads() -> int:
    """Threads of one trial: OMP_NUM_THREADS, else 1, for several agents on a host are faster than several threads."""
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else 1


def export_dense(baseline: Baseline, example: torch.Tensor, device: Device, precision: str) -> Exported:
    """The dense network's export, made once per host and version of OpenVINO."""
    name = f"{baseline.sha256[:16]}-openvino-{device.versions['openvino']}"
    folder = cache_folder() / "dense" / name
    if not (folder / "dense.xml").is_file():
        with only_one(folder.with_name(f"{name}.lock")), new_folder(folder) as fresh:
            export(baseline.network, example, fresh, name="dense")
    xml = folder / "dense.xml"
    size = xml.stat().st_size + xml.with_suffix(".bin").stat().st_size
    return Exported(xml, None, precision, size, tuple(example.shape), baseline.network)
