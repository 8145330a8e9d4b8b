"""What could run networks on this host, and what is missing for it: OpenVINO's devices, CUDA, ONNX Runtime."""

import platform
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from prunefleet.agent.health.finding import OK, PROBLEM, WARNING, Finding
from prunefleet.agent.measure.conditions import ROOT

OLD_GLIBC = (2, 35)  # wheels of OpenVINO for aarch64 need it from 2025.3 on
DRIVERS = {
    "GPU": ("dev/dri/renderD128", "install its OpenCL driver (Debian: intel-opencl-icd), and join the group `render`"),
    "NPU": ("dev/accel/accel0", "install its driver (intel-driver-compiler-npu, intel-level-zero-npu)"),
}
"""Devices that OpenVINO may know, the file by which the kernel shows them, and what is missing where it does not."""


def devices(root: Path = ROOT) -> Iterator[Finding]:
    """What runs networks here, each with its precisions; what the kernel shows and no library reaches."""
    yield from openvino(root)
    yield from cuda(root)
    if util.find_spec("onnxruntime"):
        yield Finding("onnxruntime", OK, f"version {metadata.version('onnxruntime')}")


def openvino(root: Path) -> Iterator[Finding]:
    """OpenVINO's version and devices."""
    try:
        from prunefleet.agent.measure.openvino_core import openvino as engine
        from prunefleet.agent.measure.runners.base import supported_precisions

        known = list(engine.Core().available_devices)
        precisions = supported_precisions()
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("openvino", PROBLEM, " ".join(str(error).split())[:200], _install())
        return
    named = ", ".join(f"{device} at {', '.join(precisions)}" if device == "CPU" else device for device in known)
    yield Finding("openvino", OK, f"version {metadata.version('openvino')}: {named}")
    for device, (file, remedy) in DRIVERS.items():
        if (root / file).exists() and not any(each.startswith(device) for each in known):
            yield Finding(device, WARNING, f"the kernel shows one (/{file}), OpenVINO does not see it", remedy)


def _install() -> str:
    library, version = platform.libc_ver()
    told = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if library == "glibc" and platform.machine() == "aarch64" and told < OLD_GLIBC:
        return f"glibc {version} is too old for it: pip install 'openvino<2025.3'"
    return "install what a measuring host needs: pip install 'prunefleet[measure]'"


def cuda(root: Path) -> Iterator[Finding]:
    """An NVIDIA card, its driver, and whether torch reaches it; torch is loaded only where there is a card."""
    if not (root / "dev/nvidia0").exists() and not (root / "proc/driver/nvidia/version").exists():
        return
    if not util.find_spec("torch"):
        yield Finding(
            "CUDA", WARNING, "there is a card, and no torch", "to train here: pip install 'prunefleet[trial]'"
        )
        return
    import torch

    if torch.cuda.is_available():
        yield Finding("CUDA", OK, f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        return
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    remedy = (
        "install a driver for that CUDA (`nvidia-smi` must work)"
        if torch.version.cuda
        else "install torch's CUDA build"
    )
    yield Finding(
        "CUDA", PROBLEM, f"there is a card, and torch {torch.__version__}, {built}, does not reach it", remedy
    )
