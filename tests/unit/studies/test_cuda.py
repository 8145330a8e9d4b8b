"""The bench on a GPU, as far as a host without one can tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from studies.cuda.study import NO_DEVICE, STEPS, page
from support.measure import machine
from support.paths import RESULTS, TESTS


def _run(*command: str, **env: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    given = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | env
    return subprocess.run([sys.executable, "-m", *command], env=given, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_host_without_a_gpu_is_told_so() -> None:
    """One line, 2, and the page stays what it was."""
    before = (RESULTS / "cuda.md").read_text()
    done = _run("studies.cuda.study")
    assert (done.returncode, done.stderr, done.stdout) == (2, NO_DEVICE + "\n", "")
    assert (RESULTS / "cuda.md").read_text() == before


def test_the_page_says_whether_it_was_run() -> None:
    """It is the one that the raw data gives, or says that there is none; all steps together last eight minutes."""
    raw = RESULTS / "cuda.json"
    assert (RESULTS / "cuda.md").read_text() == page(json.loads(raw.read_text()) if raw.exists() else None)
    assert sum(step.limit for step in STEPS) <= 8 * 60


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["demo", "resnet50"])
def test_its_trials_end_in_figures(name: str, tmp_path: Path) -> None:
    """On few pictures and the processor: latencies are there, and the page shows them."""
    done = _run("studies.cuda.trial", name, "torch_cpu", CUDA_BENCH_SHORT="1", PRUNEFLEET_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    trial = json.loads(done.stdout.splitlines()[-1])
    step = {"step": name, "rc": 0, "seconds": trial["seconds"], "counts": {}, "skips": [], "trial": trial, "end": ""}
    shown = page({"gpu": "none", "machine": machine(), "steps": [step]})
    assert trial["trial"] == name and f"| {name} | made up | {trial['told']['latency_ratio']:.3f} (" in shown
