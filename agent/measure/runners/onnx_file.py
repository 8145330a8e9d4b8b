"""A network as ONNX, for runners that take no IR; torch is needed only where the file is not there yet."""

import os
from pathlib import Path

from prunefleet.agent.measure.exported import Exported
from prunefleet.objective.errors import BadInput


def onnx_file(exported: Exported) -> Path:
    """The network as ONNX in f32, written beside its IR where it is not there yet.

    Raises `BadInput` where there is neither the file nor the network to make it from.
    """
    path = exported.onnx or exported.xml.with_suffix(".onnx")
    if path.is_file():
        return path
    if exported.network is None:
        raise BadInput("model", str(exported.xml), "ONNX needs the network itself: measure it where it was exported")
    import torch

    from prunefleet.agent.measure.export import write_onnx

    fresh = path.with_name(f".{os.getpid()}-{path.name}")  # other processes may write the dense network's meanwhile
    write_onnx(exported.network, torch.zeros(exported.input_shape), fresh)
    return fresh.replace(path)
