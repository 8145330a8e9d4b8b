"""A network → OpenVINO IR (and ONNX on request), and the proof that both compute the same."""

import copy
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.openvino_core import openvino, traced
from prunefleet.objective.errors import BadInput
from prunefleet.objective.runners import PRECISIONS
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

PARITY_LIMIT = 1e-4
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

    `example_input`: [1, ...], which fixes the input's shape. The network is left as it was. Raises `BadInput` for an
    unknown precision and `TrialFailed` where the network does not convert.
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
            model, shape = traced(network, example_input), tuple(example_input.shape)
            return openvino.convert_model(model, example_input=example_input, input=[shape])
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        raise TrialFailed(
            Failure(FailureKind.DEVICE, "export", f"OpenVINO cannot convert the network: {message}")
        ) from error


def write_onnx(network: nn.Module, example_input: torch.Tensor, path: Path) -> Path:
    """Write `network` as ONNX in f32. Raises `BadInput` where what torch needs for it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (example_input,), path, dynamo=True, verbose=False, external_data=False)
    except ImportError as error:
        raise BadInput("onnx", True, "install what torch exports ONNX with: pip install 'prunefleet[onnx]'") from error
    return path


def parity(exported: Exported, network: nn.Module, example_input: torch.Tensor) -> float:
    """Largest difference between the exported model and torch, in f32, relative to torch's largest output.

    `example_input`: [1, ...]; the two are compared on it and on one of noise. Not a number where either is not finite.
    """
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(exported.xml, "CPU", options)
    reference = copy.deepcopy(network).float().eval()
    noise = torch.randn(example_input.shape, generator=torch.Generator().manual_seed(0))
    return max(_difference(compiled, reference, batch) for batch in (example_input.float(), noise))


def _difference(compiled: "openvino.CompiledModel", network: nn.Module, batch: torch.Tensor) -> float:
    with torch.no_grad():
        expected = network(batch)
    outputs = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    got = compiled([batch.numpy()])
    worst = 0.0
    for index, tensor in enumerate(outputs):
        error = np.abs(got[index] - tensor.numpy()).max() / max(float(tensor.abs().max()), 1e-12)
        worst = max(worst, float(error)) if np.isfinite(error) else float("nan")
    return worst


def check_parity(
    exported: Exported, network: nn.Module, example_input: torch.Tensor, limit: float = PARITY_LIMIT
) -> float:
    """`parity`, or `TrialFailed` where it is above `limit`: what would ship is then not what was evaluated."""
    difference = parity(exported, network, example_input)
    if not difference <= limit:
        message = f"exported model differs from torch by {difference:.2g} of the largest output, {limit:.0e} allowed"
        raise TrialFailed(Failure(FailureKind.DEVICE, "parity", message))
    return difference
