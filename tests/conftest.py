"""What all tests share: fixed examples, and markers that skip with a reason, or fail where CI has promised more."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from support.needs import NEEDS, insist
from support.paths import TESTS

# The same examples every time: a failure is found again by running again, on any machine.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile("sample", settings.get_profile("fixed"), max_examples=40)
settings.load_profile("fixed")

# Hubs wait for the disk at each write, in memory they do not. What is killed loses as little there as on a disk.
MEMORY, LEAST_BYTES = Path("/dev/shm"), 8 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
    disk = os.statvfs(MEMORY)
    if disk.f_bavail * disk.f_frsize > LEAST_BYTES and not disk.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Each process of tests is a host of its own: trials that measure and train wait for those of the same process alone.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
HOST, OWNER = tempfile.mkdtemp(prefix="pf-"), os.getpid()
os.environ["TMPDIR"] = tempfile.tempdir = HOST


@atexit.register
def _leave() -> None:
    """Remove the folder, but not where a process that a test has forked ends."""
    if os.getpid() == OWNER:
        shutil.rmtree(HOST, ignore_errors=True)


# Threads of torch that wait must not keep the cores from the other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell starts what is to run in the background with these ignored, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# Files of few, long tests go first, or one process would still be at them when the other has nothing left to do.
LONGEST = ("acceptance", "wire")


def pytest_configure(config: pytest.Config) -> None:
    """Where the long tests are left out, so are more than the first examples of each property."""
    settings.load_profile("sample" if "not slow" in config.option.markexpr else "fixed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the folders whose tests take longest; the order within them and after them stays random."""
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).parts[0]))


def _place(folder: str) -> int:
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.fixture(autouse=True)
def _means(request: pytest.FixtureRequest) -> None:
    """Skip a marked test whose means are missing, or fail it where PRUNEFLEET_REQUIRE names them."""
    for need in NEEDS:
        if request.node.get_closest_marker(need) is not None:
            insist(need)
