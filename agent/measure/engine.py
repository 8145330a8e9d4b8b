"""OpenVINO, imported here alone.

Its Python package reports usage to its makers from the first import on, unless a user opts out in their home.
Measurements on a closed network should neither talk nor wait for an answer, so the package gets its own silent stand-
in.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "not installed": it has a stub for that

import openvino  # noqa: E402

__all__ = ["openvino"]
