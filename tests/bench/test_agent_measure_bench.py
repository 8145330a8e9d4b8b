"""How repeatable a latency ratio is on this host, and in which steps its channels pay; `-s` shows the figures."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agent.compress.groups import find_groups
from agent.compress.prune import prune
from agent.measure.benchmark import compare, compare_many
from agent.measure.device import channel_step, fingerprint
from agent.measure.export import export
from agent.measure.runners import OpenVINORunner, supported_precisions
from agent.tasks.network import ResNet9

pytestmark = pytest.mark.bench
HERE = fingerprint()
IMAGE = torch.zeros(1, 1, 28, 28)
NEIGHBOUR = """
import torch
torch.set_num_threads(1)
a = torch.randn(512, 512)
while True:
    a @ a
"""


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """That many processes that compute without a pause and know nothing of our lock."""
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_ratio_repeats_beside_busy_neighbours(count: int, tmp_path: Path) -> None:
    """Twelve measurements of the halved demonstration network spread by a few percent at most."""
    network = ResNet9().eval()
    groups = find_groups(network, IMAGE)
    halved = prune(network, IMAGE, groups, {group.name: group.width // 2 for group in groups}).network
    dense = export(network, IMAGE, tmp_path, name="dense")
    half = export(halved, IMAGE, tmp_path, name="half")
    with neighbours(count):
        found = [compare(half, dense, runner=OpenVINORunner(), device=HERE, seed=seed).latency for seed in range(12)]
    ratios = np.array([latency.ratio for latency in found])
    width = np.mean([(latency.ratio_hi - latency.ratio_lo) / 2 / latency.ratio for latency in found])
    inside = np.mean([latency.ratio_lo <= np.median(ratios) <= latency.ratio_hi for latency in found])
    spread = ratios.std(ddof=1) / ratios.mean()
    print(
        f"\n{count} neighbours: ratio {ratios.mean():.4f}, spread {spread:.2%}, interval ±{width:.2%} "
        f"({inside:.0%} hold the median), p50 {np.mean([latency.p50_ms for latency in found]):.4f} ms, "
        f"p99 {np.mean([latency.p99_ms for latency in found]):.3f} ms, rounds {[latency.n for latency in found]}"
    )
    assert spread < 0.1


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_channels_pay_in_steps_of_the_vector_width(precision: str, tmp_path: Path) -> None:
    """One channel above a step costs more than the next ones up to the following step together."""
    if precision not in supported_precisions():
        pytest.skip(f"this processor does not compute in {precision}")
    step = channel_step(HERE, precision)
    example = torch.zeros(1, 64, 14, 14)
    make: Callable[[int], nn.Module] = lambda n: nn.Sequential(  # noqa: E731
        nn.Conv2d(64, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, 64, 3, padding=1), nn.ReLU()
    ).eval()
    widths = [step, step + 1, 2 * step - 1, 2 * step]
    models = {str(n): export(make(n), example, tmp_path, name=f"m{n}") for n in widths}
    dense = export(make(64), example, tmp_path, name="dense")
    sitting = compare_many(models, dense, runner=OpenVINORunner(precision=precision), device=HERE, time_limit_s=20)
    low, above, _, high = (sitting.latencies[str(n)].ratio for n in widths)
    print(f"\n{precision}: " + ", ".join(f"{n} channels {sitting.latencies[str(n)].ratio:.3f}" for n in widths))
    assert above - low > abs(high - above)
