"""OpenVINO, imported here alone.

Its Python package reports usage to its makers from the first import on, unless a user opts out in their home.
Measurements on a closed network should neither talk nor wait for an answer, so the package gets its own silent stand-
in.
"""

import sys
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "not installed": it has a stub for that

import openvino  # noqa: E402

__all__ = ["openvino", "traced"]


def traced(network: Any, example_input: Any) -> Any:
    """A torch network as `openvino.convert_model` takes it, traced once.

    Left to itself torch traces twice and compares, and imports its distributed tensors to do so: a second of a trial.
    What is exported is compared on more than that afterwards.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    return TorchScriptPythonDecoder(network, example_input=example_input, trace_kwargs={"check_trace": False})
