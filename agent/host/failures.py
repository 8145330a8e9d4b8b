"""What went wrong in a stage, as a `Failure`: whose fault it is, and one line about it."""

import errno

from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

FULL = (errno.ENOSPC, errno.EDQUOT)
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
BLAMED = {
    "code": FailureKind.DATA,
    "data": FailureKind.DATA,
    "baseline": FailureKind.DATA,
    "prune": FailureKind.INFEASIBLE,
}
INSTALL = "install what a trial needs on this host: pip install 'prunefleet[trial]'"
DEVICE_WORDS = ("cuda error", "device lost", "device-side", "hip error", "exception from src/")
DEVICE_STAGES = ("export", "measure", "export_final", "parity", "quantise")


def explain(error: BaseException, stage: str) -> Failure:
    """The failure that an exception in `stage` amounts to.

    Bad input in the sweep itself is no trial's failure: `BadInput` is raised again unless the stage tells whose it is.
    """
    if isinstance(error, TrialFailed):
        return error.failure
    if isinstance(error, BadInput) and stage not in BLAMED:
        raise error
    return Failure(_kind(error, stage), stage, _words(error))


def _kind(error: BaseException, stage: str) -> FailureKind:
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(word in text for word in MEMORY_WORDS):
        return FailureKind.OUT_OF_MEMORY
    if (isinstance(error, OSError) and error.errno in FULL) or "no space left" in text:
        return FailureKind.DISK_FULL
    if isinstance(error, BadInput):
        return BLAMED[stage]
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("wandb"):
        return FailureKind.SERVER
    lost = stage in DEVICE_STAGES or any(word in text for word in DEVICE_WORDS)
    return FailureKind.DEVICE if isinstance(error, RuntimeError) and lost else FailureKind.UNKNOWN


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, BadInput):
        return text
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: {INSTALL}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
