"""A network → OpenVINO IR (and ONNX on request), and the proof that both compute the same."""

import copy
import re
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.openvino_core import answers, openvino, traced
from prunefleet.agent.measure.outputs import Flat, difference, named, noise_like, tensors
from prunefleet.objective.errors import BadInput
from prunefleet.objective.runners import PRECISIONS
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

PARITY_LIMIT = 1e-4
INPUT = "batch"
"""What `Flat` calls its input: no output has that name too."""
NO_OPERATION = "it has no operation "
UNKNOWN = re.compile(r"No conversion rule found for operations: ([^\n]+)")
ROOM = 2**16  # bytes that a disk which is not full has left


def export(
    network: nn.Module,
    example_input: torch.Tensor,
    folder: Path,
    precision: str = "f32",
    name: str = "model",
    onnx: bool = False,
) -> Exported:
    """Write `network` as `folder/name.xml` and `.bin`, in f32 whatever `precision` it is to run at.

    INT8 is made of that file by `prunefleet.agent.compress.quantise`.

    `example_input`: [1, ...], which fixes the input's shape. What holds several tensors is exported as these, in order.
    The network is left as it was. Raises `BadInput` for an unknown precision and `TrialFailed` where the network does
    not convert.
    """
    if precision not in PRECISIONS:
        raise BadInput("precision", precision, f"choose one of {', '.join(PRECISIONS)}")
    source = copy.deepcopy(network).float().eval()
    folder.mkdir(parents=True, exist_ok=True)
    xml = folder / f"{name}.xml"
    save(_convert(source, example_input), xml)
    written = write_onnx(source, example_input, folder / f"{name}.onnx") if onnx else None
    return replace(sized(xml, precision, tuple(example_input.shape)), onnx=written, network=source)


def save(model: "openvino.Model", xml: Path) -> None:
    """Write a model, its weights as they are; raises `OSError` where the disk is full, which OpenVINO does not tell."""
    try:
        # By default weights are stored in half precision: an "f32" model would be rounded without a word.
        openvino.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError:
        with tempfile.TemporaryFile(dir=xml.parent) as probe:
            probe.write(bytes(ROOM))
        raise


def _convert(network: nn.Module, example_input: torch.Tensor) -> "openvino.Model":
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of its own future
            returned, shape = network(example_input), tuple(example_input.shape)
            model = traced(_flat(network, returned), example_input)
            made = openvino.convert_model(model, example_input=example_input, input=[shape])
            _name_outputs(made, [name for name, _ in named(returned)])
            return made
    except Exception as error:
        message = f"OpenVINO cannot convert the network: {_said(str(error))}"
        raise TrialFailed(Failure(FailureKind.DEVICE, "export", message)) from error


def _said(error: str) -> str:
    """What the converter says, without where it says so."""
    if found := UNKNOWN.search(error):
        return NO_OPERATION + found[1]
    lines = [line.strip() for line in error.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Check '", "FrontEnd API")))[:200]


def _flat(network: nn.Module, returned: object) -> nn.Module:
    """The network as exporters take it; itself where it returns one tensor of their type."""
    plain = isinstance(returned, torch.Tensor) and returned.dtype in (torch.float32, torch.int64, torch.bool)
    return network if plain else Flat(network)


def _name_outputs(model: "openvino.Model", names: list[str]) -> None:
    """Call several outputs as they are called in torch, but for names that are there already."""
    if len(names) < 2:
        return
    taken = {name for op in model.get_ops() for output in op.outputs() for name in output.get_names()}
    for output, name in zip(model.outputs, names, strict=True):
        if name not in taken:
            output.get_tensor().add_names({name})
            taken.add(name)


def write_onnx(network: nn.Module, example_input: torch.Tensor, path: Path) -> Path:
    """Write `network` as ONNX in f32. Raises `BadInput` where what torch needs for it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad():
                returned = network(example_input)
            names = [name for name, _ in named(returned)]
            options: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
            if 1 < len(names) == len({*names, INPUT}) - 1:
                options["output_names"] = names
            torch.onnx.export(_flat(network, returned), (example_input,), path, **options)
    except ImportError as error:
        raise BadInput("onnx", True, "install what torch exports ONNX with: pip install 'prunefleet[onnx]'") from error
    return path


def parity(exported: Exported, network: nn.Module, example_input: torch.Tensor) -> float:
    """Largest difference between the exported model and torch, in f32, over all outputs: see `outputs.difference`.

    `example_input`: [1, ...]; the two are compared on it and on one of noise. Not a number where either is not finite.
    """
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(exported.xml, "CPU", options).create_infer_request()
    reference = copy.deepcopy(network).float().eval()
    found = []
    for batch in (example_input.float(), noise_like(example_input)):
        with torch.no_grad():
            expected = tensors(reference(batch))
        found += [difference(*pair) for pair in zip(answers(request, batch.numpy()), expected, strict=True)]
    return float(np.max(found))  # not a number where one is none


def check_parity(
    exported: Exported, network: nn.Module, example_input: torch.Tensor, limit: float = PARITY_LIMIT
) -> float:
    """`parity`, or `TrialFailed` where it is above `limit`: what would ship is then not what was evaluated."""
    difference = parity(exported, network, example_input)
    if not difference <= limit:
        message = f"exported model differs from torch by {difference:.2g} of the largest output, {limit:.0e} allowed"
        raise TrialFailed(Failure(FailureKind.DEVICE, "parity", message))
    return difference
