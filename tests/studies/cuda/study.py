"""The contract suites and two trials on a GPU, in eight minutes: `make bench-cuda` writes docs/results/cuda.*.

Where torch has no CUDA device it says so in one line and ends with 2.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.measure import machine
from support.paths import RESULTS, ROOT, TESTS

NO_DEVICE = "torch has no CUDA device on this host: run make bench-cuda where nvidia-smi lists a GPU"
PYTEST = ("-m", "pytest", "-q", "-rs", "-p", "no:randomly", "-p", "no:cacheprovider")
THREADS = str(min(8, os.cpu_count() or 1))
HEAD = """\
# On a GPU

`make bench-cuda` runs the contract suites of runners, outputs, training and energy on a host with a CUDA device, then a
trial of the demonstration and one of a ResNet-50 with the runner `torch_cuda`, half of each group's channels gone; at
most eight minutes, n = 1.

"""
NOT_RUN = """\
**Not run yet**: no GPU was at hand. Seen without one: the demonstration's trial with the runner `torch_cpu`, and that a
host without a GPU is told so. `make test-all` has both trials (`tests/unit/studies/test_cuda.py`); they have not been
seen to pass.
"""


@dataclass(frozen=True)
class Step:
    """A command and the seconds that it may take."""

    name: str
    command: tuple[str, ...]
    limit: float


STEPS = (
    Step("runners", (*PYTEST, "tests/contract/test_agent_runners.py", "tests/contract/test_agent_outputs.py"), 120),
    Step("training", (*PYTEST, "tests/unit/agent/tasks/test_training.py"), 40),
    Step("energy", (*PYTEST, "tests/contract/test_agent_energy.py"), 40),
    Step("demo", ("-m", "studies.cuda.trial", "demo", "torch_cuda"), 130),
    Step("resnet50", ("-m", "studies.cuda.trial", "resnet50", "torch_cuda"), 140),
)
"""Together less than eight minutes."""


def main() -> int:
    """Run all steps, print the page and write it; 1 where a step failed, 2 where there is no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        return 2
    gpu = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    found = [_ran(step) for step in STEPS]
    document = {"gpu": gpu, "machine": machine(), "steps": found}
    (RESULTS / "cuda.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "cuda.md").write_text(page(document))
    print(page(document))
    return int(any(step["rc"] != 0 for step in found))


def _ran(step: Step) -> dict[str, Any]:
    """What a step said, and how it ended; 124 where it took too long."""
    paths = (str(TESTS), os.environ.get("PYTHONPATH", ""))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": THREADS}
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *step.command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=step.limit
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code, said = 124, late.stdout.decode() if isinstance(late.stdout, bytes) else ""
    print(f"{step.name}: {code} after {time.perf_counter() - began:.0f} s", flush=True)
    return {"step": step.name, "rc": code, "seconds": time.perf_counter() - began, **_told(said, code)}


def _told(said: str, code: int) -> dict[str, Any]:
    """What is kept of a step's output: counts and skips of tests, a trial's line, the end of what failed."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)s?\b", said)}
    skips = re.findall(r"^SKIPPED \[\d+\] (.*)$", said, re.MULTILINE)
    lines = [line for line in said.splitlines() if line.startswith('{"trial"')]
    trial = json.loads(lines[-1]) if lines else {}
    return {"counts": counts, "skips": skips, "trial": trial, "end": "" if code == 0 else said[-2000:]}


def page(document: Mapping[str, Any] | None) -> str:
    """The page for what was found; None where it was not run."""
    if document is None:
        return HEAD + NOT_RUN
    on = document["machine"]
    where = f"On {document['gpu']}; {on['cores']} × {on['cpu']}, {on['system']}, Python {on['python']}.\n\n"
    suites = [step for step in document["steps"] if step["counts"]]
    trials = [step for step in document["steps"] if step["trial"]]
    rest = [step for step in document["steps"] if not step["counts"] and not step["trial"]]
    return HEAD + where + _suites(suites) + _trials(trials) + "".join(map(_failed, rest))


def _suites(steps: Sequence[Mapping[str, Any]]) -> str:
    text = "| suite | passed | failed | skipped | s |\n|---|---|---|---|---|\n"
    for step in steps:
        passed, failed, skipped = (step["counts"].get(name, 0) for name in ("passed", "failed", "skipped"))
        text += f"| {step['step']} | {passed} | {failed} | {skipped} | {step['seconds']:.0f} |\n"
    return text + "\n" + "".join(f"- skipped: {skip}\n" for step in steps for skip in step["skips"]) + "\n"


def _trials(steps: Sequence[Mapping[str, Any]]) -> str:
    text = "| trial | pictures | latency ratio | dense, ms | pruned, ms | energy, mJ | s |\n" + "|---" * 7 + "|\n"
    for step in steps:
        told = step["trial"]["told"]
        ratio = f"{told['latency_ratio']:.3f} ({told['latency_ratio_lo']:.3f} to {told['latency_ratio_hi']:.3f})"
        energy = f"{told['energy_mj']:.1f}" if "energy_mj" in told else "not told"
        times = f"{told['baseline_p50_ms']:.3f} | {told['latency_p50_ms']:.3f}"
        pictures = "made up" if step["trial"]["made_up"] else "its own"
        text += f"| {step['step']} | {pictures} | {ratio} | {times} | {energy} | {step['seconds']:.0f} |\n"
    return text


def _failed(step: Mapping[str, Any]) -> str:
    return f"\n{step['step']} ended with {step['rc']} after {step['seconds']:.0f} s:\n\n```\n{step['end']}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
