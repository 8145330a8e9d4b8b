"""OpenVINO, imported here alone.

Its Python package reports usage to its makers from the first import on, unless a user opts out in their home.
Measurements on a closed network should neither talk nor wait for an answer, so the package gets its own silent stand-
in.
"""

import sys
from typing import Any

import numpy as np

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "not installed": it has a stub for that

import openvino  # noqa: E402

__all__ = ["answers", "openvino", "traced"]


def traced(network: Any, example_input: Any) -> Any:
    """A torch network as `openvino.convert_model` takes it, traced once.

    Left to itself torch traces twice and compares, and imports its distributed tensors to do so: a second of a trial.
    What is exported is compared on more than that afterwards.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    return TorchScriptPythonDecoder(network, example_input=example_input, trace_kwargs={"check_trace": False})


def answers(request: Any, batch: Any) -> tuple[Any, ...]:
    """All outputs of an infer request for a float32 array, in order, as arrays of their own types.

    By place: the library's own dict of outputs holds two that come from one tensor only once.
    """
    request.infer([np.ascontiguousarray(batch, np.float32)])
    return tuple(np.array(request.get_output_tensor(place).data) for place in range(len(request.model_outputs)))
