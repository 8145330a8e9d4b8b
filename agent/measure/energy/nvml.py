"""NVIDIA's management library, imported here alone (package nvidia-ml-py, extra `[energy]`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pynvml


@contextmanager
def gpu(uuid: str | None) -> Iterator[Callable[[], int]]:
    """Gives a function that returns the GPU's millijoules since the driver was loaded; the first GPU for None.

    Raises `OSError` where the driver, the GPU or its counter is missing.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise OSError(f"NVML: {error}") from error
    try:
        yield _counter(uuid)
    finally:
        pynvml.nvmlShutdown()


def _counter(uuid: str | None) -> Callable[[], int]:
    def millijoules() -> int:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        raise OSError(f"NVML: {error}") from error
    return millijoules
