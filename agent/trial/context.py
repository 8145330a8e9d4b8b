"""What every trial of one sweep starts from on this host: task, dense network, groups, device, ready for trials."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.groups import specs
from prunefleet.agent.compress.merge import MergedSpace, merge
from prunefleet.agent.compress.quantise import quantise
from prunefleet.agent.host.cache_files import cache_folder, new_folder, only_one
from prunefleet.agent.measure.benchmark import TIME_LIMIT_S
from prunefleet.agent.measure.device import common_step
from prunefleet.agent.measure.export import check_parity, export
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.outputs import Outputs, recorded
from prunefleet.agent.measure.remote.stubs import evaluation_runner
from prunefleet.agent.measure.runners.base import LoadedNetwork, Runner, SampledNetwork
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.samples import FILE as SAMPLES
from prunefleet.agent.tasks.baseline import ArtifactStore, Baseline, Progress, obtain
from prunefleet.agent.tasks.code.carried import provide
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import Budget, Task, named_data
from prunefleet.agent.trial.network import calibration_size, check_finite, check_network, made
from prunefleet.agent.trial.places import MeasuringPlace, places_of
from prunefleet.agent.trial.proven import survey_of
from prunefleet.agent.trial.request import Request
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.sweepfile import F32, SAME, code_sha256
from prunefleet.objective.trial import Candidate, Device, Failure, FailureKind, TrialFailed

Stage = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class TrialContext:
    """What a trial needs besides its candidate: the same for all trials of a sweep on this host.

    `places` has the devices that latencies are measured on, this host first where it is one of them.
    """

    task: Task
    baseline: Baseline
    groups: tuple[Group, ...]
    space: MergedSpace
    goal: Goal
    places: tuple[MeasuringPlace, ...]
    dense: Exported
    dense_f32: Exported
    lr: float | None = None
    distill: bool = False
    skip: bool = True
    seconds_to_measure: float = TIME_LIMIT_S
    against: str = SAME

    @property
    def precision(self) -> str:
        """The one that candidates and the dense network are deployed and measured at."""
        return self.dense.precision

    @property
    def runner(self) -> Runner:
        """What runs candidates at the first place."""
        return self.places[0].runner

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that latencies are measured on."""
        return tuple(place.device for place in self.places)

    @property
    def reference(self) -> Exported:
        """The dense network that latency ratios are of."""
        return self.dense_f32 if self.against == F32 else self.dense

    def samples(self, place: MeasuringPlace) -> str:
        """The file of a trial's raw samples from there, with the device's name where there are several."""
        return SAMPLES if len(self.places) == 1 else f"samples-{place.device.name}.json.gz"

    def at(self, precision: str) -> "TrialContext":
        """The same context at another precision."""
        if precision == self.precision:
            return self
        dense = export_dense(self.baseline, self.task, precision)
        space = space_of(self.groups, self.devices, grid_of(precision, self.against))
        return replace(self, space=space, places=tuple(place.at(precision) for place in self.places), dense=dense)

    def deploy(self, network: nn.Module, folder: Path, name: str = "model", rough: bool = False) -> Exported:
        """`network` as it would ship: `folder/name.xml`, at INT8 quantised; `rough` is enough for its latency."""
        return deploy(network, self.task, folder, self.precision, name, rough)

    def as_deployed(self, model: Exported, network: nn.Module) -> nn.Module:
        """Return what quality is evaluated on: `network`, or, at another precision than f32, its `model` on the device.

        A program of the user's only times networks, so what it ran is evaluated as `network`. For a device elsewhere
        this host's processor answers.
        """
        if self.precision == "f32":
            return network
        runner = evaluation_runner(self.runner)
        loaded = runner.load(model) if runner else None
        return network if loaded is None or isinstance(loaded, SampledNetwork) else self.answering(loaded, model)

    def answering(self, loaded: LoadedNetwork, model: Exported) -> Deployed:
        """Return `model`, loaded on a device, as a torch network that returns what the dense one does."""
        return Deployed(loaded, model.input_shape, self.outputs)

    @property
    def outputs(self) -> Outputs:
        """What the dense network returns, and so each pruned one. Raises `BadInput` for what no device gives."""
        return recorded(self.baseline.network, self.task.example_input())

    def budget(self, candidate: Candidate) -> Budget:
        """How a candidate is fine-tuned: by its own epochs and seed, the dense network teaching where that is asked."""
        teacher = self.baseline.network if self.distill else None
        return Budget(candidate.epochs, self.lr, candidate.seed, teacher)


def prepare(
    request: Request,
    store: ArtifactStore | None,
    during: Stage,
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
    fresh: bool = False,
) -> TrialContext:
    """The context that `request` asks for; `during(stage)` is entered for each part.

    `check` and `fresh` are those of `places_of`; `fresh` also has the network looked at before and after its training.
    Raises `BadInput` where the request cannot be met on any host, or in the stages "code", "data" and "baseline" on
    this one, `TrialFailed` where it has not the device.
    """
    torch.set_num_threads(trial_threads())
    folder = None
    if request.code:
        with during("code"):
            folder = provide(request.task, request.code, store)
    with during("task"):
        task = loaded(request, folder, at_fault=fresh)
        network = made(task) if fresh else None
    with during("device"):
        places = places_of(request, store, check, fresh)
    with during("data"):
        example = task.example_input()
        check_data(task, request.data)
        if network:
            calibration_size(task)
    if network:
        with during("export"):
            check_network(task, network, places[0].runner, request.candidate.precision)
    with during("baseline"):
        baseline = obtain(task, store if request.upload != "metrics" else None, request.baseline, progress)
        if network:
            check_finite(baseline.network, example)
    with during("groups"):
        groups = survey_of(task, baseline.network, baseline.sha256).groups
        plain = export_dense(baseline, task, "f32")
        dense = export_dense(baseline, task, request.candidate.precision)
    grid = grid_of(request.candidate.precision, request.against)
    space = space_of(groups, [place.device for place in places], grid)
    recipe = (request.lr, request.distill, request.skip)
    return TrialContext(
        task, baseline, groups, space, request.goal, places, dense, plain, *recipe, against=request.against
    )


def loaded(request: Request, folder: Path | None, at_fault: bool = False) -> Task:
    """The task of a request, from the `folder` with the sweep's code where this host's own is not to be run.

    Code that a sweep names was loaded where it was planned: unless the sweep itself is `at_fault`, a host that cannot
    load it lacks something, and raises `TrialFailed`.
    """
    try:
        task = load_task(request.task, request.options, folder, request.beside)
    except BadInput as error:
        if at_fault or not request.code or error.field != "task":
            raise
        raise TrialFailed(Failure(FailureKind.DATA, "task", str(error))) from error
    if request.code:
        task.given_code = code_sha256(request.code)  # type: ignore[attr-defined]  # for its hash
    return task


def check_data(task: Task, wanted: str | None) -> None:
    """Raise `BadInput` where this host's data is not what the sweep was planned with: results would not compare."""
    own = named_data(task) if wanted else None
    if own != wanted:
        remedy = f"bring the sweep's data here, {str(wanted)[:12]}, or plan a sweep of this host's"
        raise BadInput("data", str(own)[:12], remedy)


def grid_of(precision: str, against: str) -> str:
    """The precision whose vector width decides the channel grid: one grid where a sweep compares precisions."""
    return F32 if against == F32 else precision


def space_of(groups: tuple[Group, ...], devices: Iterable[Device], precision: str) -> MergedSpace:
    """The groups on the devices' channel grid, many of them merged into fewer dimensions."""
    return MergedSpace(specs(groups, common_step(devices, precision)), dimensions=merge(groups))


def trial_threads() -> int:
    """Threads of one trial: OMP_NUM_THREADS, else 1, for several agents on a host are faster than several threads."""
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else 1


def deploy(
    network: nn.Module, task: Task, folder: Path, precision: str, name: str = "model", rough: bool = False
) -> Exported:
    """`network` as it would ship at `precision`, in `folder`; an INT8 one's f32 export stays beside it as `name_f32`.

    `rough` quantises just well enough to measure latency. Raises as `export` and `quantise` do.
    """
    example = task.example_input()
    if precision != "int8":
        return export(network, example, folder, precision, name)
    return quantise(export(network, example, folder, "f32", f"{name}_f32"), task.calibration(), name, rough)


def export_dense(baseline: Baseline, task: Task, precision: str) -> Exported:
    """The dense network as it would ship at `precision`, made once per host and versions of what makes it.

    Raises `TrialFailed` where it does not compute what torch does.
    """
    maker = f"int8-nncf-{version_of('nncf')}-" if precision == "int8" else ""
    name = f"{baseline.sha256[:16]}-{maker}openvino-{version_of('openvino')}"
    folder = cache_folder() / "dense" / name
    if not (folder / "dense.xml").is_file():
        with only_one(folder.with_name(f"{name}.lock")), new_folder(folder) as fresh:
            made = deploy(baseline.network, task, fresh, "int8" if maker else "f32", "dense")
            if not maker:  # an INT8 network rounds
                check_parity(made, baseline.network, task.example_input())
    return replace(sized(folder / "dense.xml", precision, tuple(task.example_input().shape)), network=baseline.network)


def version_of(package: str) -> str:
    """The version of an installed package, "none" where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
