"""Which host and device a figure was measured on, and the steps in which its channels pay."""

import math
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.objective.runners import PRECISIONS
from prunefleet.objective.trial import Device

VERSIONS = ("openvino", "onnxruntime", "torch", "torch-pruning", "numpy")


def fingerprint(name: str = "local", kind: str = "CPU") -> Device:
    """This host as a `Device` of that `name`; `kind` is OpenVINO's or torch's name for what runs the network."""
    return Device(
        name=name,
        kind=kind.lower(),
        host=platform.node(),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 2),
        os=_os_name(),
        versions={"python": platform.python_version(), **_versions()},
        accelerator=_accelerator(kind),
    )


def described(name: str, kind: str = "CPU") -> Device:
    """This host's fingerprint for hosts elsewhere, which cannot look at its processor: with its channel steps."""
    found = fingerprint(name, kind)
    return replace(found, channel_steps={each: channel_step(found, each) for each in PRECISIONS})


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """The processor's model name, or its architecture where the kernel gives none."""
    return _cpuinfo("model name") or _cpuinfo("Model") or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def channel_step(device: Device, precision: str, flags: frozenset[str] | None = None) -> int:
    """Kept channels should be multiples of this: the width of the device's vector (or tile) at that precision.

    As the device tells, else by `flags`: the processor's instruction sets, this host's unless given. 16 for f32 on
    AVX-512 (measured: see docs/measurement.md), 8 on AVX2 and Arm, 32 for bf16 and int8 on AMX tiles, 16 where nothing
    is known.
    """
    if precision in device.channel_steps:
        return device.channel_steps[precision]
    flags = cpu_flags() if flags is None else flags
    if not device.kind.startswith("cpu"):
        return 16
    if precision in ("bf16", "int8") and flags & {"amx_bf16", "amx_int8"}:
        return 32
    if "avx512f" in flags:
        return 16
    return 8 if flags & {"avx2", "asimd", "neon"} else 16


def common_step(devices: Iterable[Device], precision: str) -> int:
    """The least step that pays on all of the devices."""
    return math.lcm(*(channel_step(device, precision) for device in devices))


def _cpuinfo(field: str) -> str | None:
    path = Path("/proc/cpuinfo")
    found = re.search(rf"^{re.escape(field)}\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found.group(1).strip() if found else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _accelerator(kind: str) -> str | None:
    """The accelerator's own name, where `kind` is one that OpenVINO or torch knows."""
    if kind.upper().startswith("CUDA"):
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if kind.upper() == "CPU" or kind not in openvino.Core().available_devices:
        return None
    return str(openvino.Core().get_property(kind, "FULL_DEVICE_NAME"))
