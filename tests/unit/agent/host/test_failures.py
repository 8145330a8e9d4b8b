"""What really happens to a host, provoked: each becomes a failure of the right kind, or none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.agent.trial.stages import remembered
from prunefleet.objective.trial import Candidate, Failure, FailureKind

from support.trial_context import tiny_context

CANDIDATE = Candidate({"conv2": 0.5}, epochs=0.2)
OUT_OF_MEMORY = """
import resource, sys
import numpy, torch
from prunefleet.agent.host.failures import explain
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
python = lambda size: [bytearray(2**20) for _ in range(size // 2**18)]
for ask in (torch.ones, numpy.ones, python):
    try:
        ask(2**30)
    except Exception as error:
        print(explain(error, "train").kind.value)
"""


def test_memory_that_runs_out_is_the_hosts_failure() -> None:
    """Whether torch, numpy or Python itself asked for it, under a real limit of the kernel's."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["out_of_memory"] * 3, done.stderr


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialContext]:
    with tiny_context(tmp_path_factory.mktemp("cache")) as made:
        yield made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.mount
def test_a_full_disk_is_the_hosts_failure(context: TrialContext, small_disk: Path) -> None:
    """The export of a network does not fit: not the device's fault, nor the candidate's."""
    result = run_trial(CANDIDATE, context, small_disk, StageWatch())
    assert isinstance(result, Failure), result
    assert (result.kind, result.stage) == (FailureKind.DISK_FULL, "export")


@pytest.mark.mount
def test_a_cache_on_a_full_disk_is_done_without(
    context: TrialContext, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial comes to its score; what fitted was kept."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(small_disk))
    result = run_trial(CANDIDATE, context, tmp_path, StageWatch(), remembered(context, CANDIDATE))
    assert isinstance(result, Trial)
    assert {path.name.partition("-")[0] for path in (small_disk / "trials").iterdir()} == {"measure"}


def test_a_lost_device_is_the_hosts_failure(context: TrialContext, tmp_path: Path) -> None:
    """The export that the device should load vanishes under it."""
    gone = StageWatch(log=lambda row: None)
    original = context.dense.xml.read_bytes()
    context.dense.xml.unlink()
    try:
        result = run_trial(CANDIDATE, context, tmp_path, gone)
    finally:
        context.dense.xml.write_bytes(original)
    assert isinstance(result, Failure) and (result.kind, result.stage) == (FailureKind.DEVICE, "measure")
    assert "\n" not in result.message
