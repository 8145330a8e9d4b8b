"""What a network must be before anything is trained: made, running, finite, and fit for export; told in seconds."""

import copy
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.fold import folded
from prunefleet.agent.compress.quantise import quantise
from prunefleet.agent.compress.walk import run_once
from prunefleet.agent.measure.export import NO_OPERATION, PARITY_LIMIT, export, parity
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.outputs import Flat, Outputs, named, recorded
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.measure.runners.base import Runner
from prunefleet.agent.tasks.networks import misfit
from prunefleet.agent.tasks.networks.zoo import input_size
from prunefleet.agent.tasks.task import Task
from prunefleet.agent.trial.values import check_values
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import TrialFailed

UNTRAINED_LIMIT = 10 * PARITY_LIMIT
"""Random weights let rounding grow; the trained network is held to the limit itself."""
SCOPE = re.compile(r"__module\.([\w.]+)")


def made(task: Task) -> nn.Module:
    """The task's dense network. Raises `BadInput` where its `network()` fails, as with weights that do not fit."""
    try:
        return folded(task.network())
    except (BadInput, TrialFailed, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:
        fault = misfit.of_error(error) if isinstance(error, RuntimeError) else None
        if fault:
            raise BadInput("weights", task.name, f"give those of the network that the task makes: {fault}") from error
        brief = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BadInput("network", task.name, f"mend the task's network(), which fails: {brief}") from error


def calibration_size(task: Task) -> int:
    """How many inputs the task calibrates with. Raises `BadInput` for batches that are not such as `forward` takes."""
    shape = tuple(task.example_input().shape[1:])
    remedy = f"yield float tensors [n, {', '.join(map(str, shape))}] of inputs alone, as example_input, without targets"
    count, fitting = 0, False
    for batch in task.calibration():
        if not isinstance(batch, torch.Tensor) or not batch.is_floating_point():
            got = batch.dtype if isinstance(batch, torch.Tensor) else type(batch).__name__
            raise BadInput("calibration", str(got).removeprefix("torch."), remedy)
        count, fitting = count + len(batch), fitting or tuple(batch.shape[1:]) == shape
    if not fitting:
        raise BadInput("calibration", f"{count} inputs, none of this shape", remedy)
    return count


def check_network(task: Task, network: nn.Module, runner: Runner, precision: str) -> Outputs:
    """What `network`, trained or not, returns; raises `BadInput`, naming layer, output or operation, if it cannot ship.

    It is run, exported and loaded by `runner` where that is here; at INT8 also quantised. Raises `TrialFailed` where
    this host lacks what that needs.
    """
    example, copied = task.example_input(), copy.deepcopy(network).eval()
    _run(task, copied, example)
    check_finite(copied, example)
    found = recorded(copied, example)
    check_values(copied, example)
    with tempfile.TemporaryDirectory() as folder:
        exported = _exported(copied, example, Path(folder))
        if precision == "int8":
            exported = quantise(exported, task.calibration(), "int8", rough=True)
        if not isinstance(runner, RemoteRunner):
            runner.load(exported)
    return found


def _run(task: Task, network: nn.Module, example_input: torch.Tensor) -> None:
    """Raise `BadInput` where the network does not run: the task's own word if it has one, else naming the layer."""
    try:
        run_once(network, example_input)
    except BadInput as error:
        own: Callable[[nn.Module], BadInput | None] | None = getattr(task, "wrong_size", None)
        size = own(network) if own else _other_size(network, example_input)
        raise size or BadInput(error.field, error.got, f"{error.remedy} (forward is given one tensor)") from error


def _other_size(network: nn.Module, example_input: torch.Tensor) -> BadInput | None:
    """What to raise where a network was made for pictures of another size; None where it is not known for which."""
    wanted, shape = input_size(network), tuple(example_input.shape)
    if wanted is None or shape[2:] == wanted:
        return None
    return BadInput("example_input", shape, f"{type(network).__name__} takes {wanted[0]} × {wanted[1]}")


@torch.no_grad()
def check_finite(network: nn.Module, example_input: torch.Tensor) -> None:
    """Raise `BadInput` where an output for an input is not finite, naming it and the first layer where that is so."""
    if not _finite(example_input):
        raise BadInput("example_input", "nan or inf", "give an input of finite numbers")
    for name, tensor in named(network(example_input)):
        if not _finite(tensor):
            kind = "nan" if bool(tensor.isnan().any()) else "inf"
            remedy = f"the numbers stop being finite in {_first_not_finite(network, example_input)}: mend its weights"
            raise BadInput(f"network output {name}", kind, f"{remedy}, or the scale of the input")


def _finite(value: object) -> bool:
    return all(bool(each.isfinite().all()) for _, each in named(value) if each.is_floating_point())


def _first_not_finite(network: nn.Module, example_input: torch.Tensor) -> str:
    """The first layer to end whose output is not finite."""
    seen: list[str] = []

    def look(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not _finite(output):
            seen.append(name or "forward")

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in network.named_modules()]
    try:
        network(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else "forward"


def _exported(network: nn.Module, example_input: torch.Tensor, folder: Path) -> Exported:
    """The network's export, which computes what it computes. Raises `BadInput`."""
    try:
        exported = export(network, example_input, folder)
    except TrialFailed as error:
        raise _unexportable(network, example_input, error.failure.message) from error
    difference = parity(exported, network, example_input)
    if not difference <= UNTRAINED_LIMIT:
        remedy = (
            "its export computes something else than torch: keep its forward in torch, without numpy or numbers read "
            "from tensors, and without choosing (top-k, sorting) among values that are nearly equal"
        )
        raise BadInput("network", f"a difference of {difference:.2g} of the largest output", remedy)
    return exported


def _unexportable(network: nn.Module, example_input: torch.Tensor, said: str) -> BadInput:
    """Why the network cannot be exported: operation and layer, else what the converter said."""
    _, unknown, names = said.partition(NO_OPERATION)
    if unknown:
        layer = next(_layers(network, example_input, names.split(", ")), "")
        remedy = "OpenVINO has no such operation: write it with others, or move it into the task's evaluate"
        return BadInput(f"network.{layer}" if layer else "network", names, remedy)
    remedy = "OpenVINO cannot convert it: keep its forward in torch's own operations, from one tensor to tensors"
    return BadInput("network", said.removeprefix("OpenVINO cannot convert the network: "), remedy)


def _layers(network: nn.Module, example_input: torch.Tensor, operations: list[str]) -> Iterator[str]:
    """The layers whose forward has these operations, as TorchScript calls them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(Flat(network), example_input, check_trace=False)  # type: ignore[no-untyped-call]
    graph = traced.inlined_graph  # its nodes live no longer than it
    for operation in operations:
        for node in graph.findAllNodes(operation):
            scopes = SCOPE.findall(node.scopeName())
            yield scopes[-1].removeprefix("network.") if scopes and scopes[-1] != "network" else "forward"
