"""Whether a difference in latency means something on this host: figures and raw data to docs/results/fidelity.*.

Alone on the machine it takes less than ten minutes. `FIDELITY_BENCH_SHORT=1` shortens all of it for a trial of the
bench itself, whose figures are not kept and whose bars do not count.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.stats import spearmanr
from torch import nn

from prunefleet.agent.compress.groups import find_groups, specs
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.measure.benchmark import DENSE, MeasurementSession, MeasurementSetup, compare, compare_many
from prunefleet.agent.measure.device import channel_step, fingerprint
from prunefleet.agent.measure.export import export
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.pace import FEWEST, against_the_past, in_its_usual_state
from prunefleet.agent.measure.runners.base import OpenVINORunner, supported_precisions
from prunefleet.agent.tasks.networks.resnet import ResNet9
from prunefleet.objective.profiles.space import Space

from studies.fidelity.app import medians
from studies.fidelity.median import INPUT, calls_in
from studies.fidelity.report import keep, paired

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
SHORT = bool(os.environ.get("FIDELITY_BENCH_SHORT"))
HERE = fingerprint()
IMAGE, LARGE = torch.zeros(1, 1, 28, 28), torch.zeros(INPUT)
REPEATS, TURNS, CANDIDATES = (2, 2, 4) if SHORT else (5, 9, 10)
APP_S = 1
SESSION_S = 2.0 if SHORT else 30.0
NETWORKS = ("squeezenet1_1", "mobilenet_v2", "resnet18")[: 1 if SHORT else 3]
NEIGHBOUR = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
import torch
torch.set_num_threads(1)
a = torch.randn(512, 512)
print("busy", flush=True)
while True:
    a @ a
"""


@contextmanager
def busy(cores: list[int]) -> Iterator[None]:
    """On each of those cores a process that computes without a pause and knows nothing of our lock."""
    argv = [sys.executable, "-c", NEIGHBOUR]
    processes = [subprocess.Popen([*argv, str(core)], stdout=subprocess.PIPE) for core in cores]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"busy\n"
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _demo(folder: Path, **kept: Mapping[str, int]) -> dict[str, Exported]:
    """The demonstration network, dense, and pruned to the channels given, exported."""
    network = ResNet9().eval()
    groups = find_groups(network, IMAGE)
    made = {name: prune(network, IMAGE, groups, counts).network for name, counts in kept.items()}
    return {name: export(each, IMAGE, folder, name=name) for name, each in {DENSE: network, **made}.items()}


def _space() -> Space:
    return Space(specs(find_groups(ResNet9().eval(), IMAGE), channel_step(HERE, "f32")))


@pytest.mark.parametrize("what", ["quiet", "busy"])
def test_repeats_of_a_candidate_agree(what: str, tmp_path: Path) -> None:
    """Five measurements of the halved network, as a trial makes one, differ by 2 % at most beside busy cores.

    A trial measures on a host that it has known for some measurement sessions, so there are three before the five.
    """
    half = {spec.name: spec.width // 2 for spec in _space().groups}
    models = _demo(tmp_path, half=half)
    cores = sorted(os.sched_getaffinity(0))[1:] if what == "busy" else []

    def measure(seed: int) -> MeasurementSession:
        return compare(models["half"], models[DENSE], MeasurementSetup(runner=OpenVINORunner(), device=HERE, seed=seed))

    with busy(cores):
        for seed in range(FEWEST):
            against_the_past(measure(seed).latency, what, folder=tmp_path / "pace")
        found = [
            in_its_usual_state(
                lambda before, seed=seed: measure(10 * seed + before), what, folder=tmp_path / "pace"
            ).latency
            for seed in range(1, REPEATS + 1)
        ]
    ratios = np.array([latency.ratio for latency in found])
    spread = float(ratios.max() / ratios.min() - 1)
    raw = [latency.to_json() | {"device": None} for latency in found]
    keep(f"repeats_{what}", {"busy": len(cores), "spread": spread, "latencies": raw}, HERE, not SHORT)
    assert SHORT or what == "quiet" or spread <= 0.02


def test_medians_agree_with_benchmark_app(tmp_path: Path) -> None:
    """On three networks, moment by moment in turns: medians are within 3 % of what OpenVINO's own tool tells.

    The tool loads a network once, in a process of its own, and calls it without a pause: so does what is held against
    it. How the same network fares loaded eight times in turns, as in a trial, stands beside.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name in NETWORKS:
        torch.manual_seed(0)
        model = export(torchvision.models.get_model(name, weights=None).eval(), LARGE, tmp_path, name=name)
        calls = calls_in(model, APP_S)
        turns = [medians(model, calls, APP_S, turn) for turn in range(TURNS)]
        found[name] = {way: [each[way] for each in turns] for way in turns[0]}
    keep("benchmark_app", {"seconds": APP_S, "networks": found}, HERE, not SHORT)
    for name, each in found.items():
        apart, *_ = paired(each["ours_ms"], each["theirs_ms"])
        assert SHORT or abs(apart) <= 0.03, f"{name}: {apart:+.1%}"


def test_candidates_keep_their_order(tmp_path: Path) -> None:
    """Ten random candidates on the channel grid have the same ranks in two sessions: Spearman's rho is .98 or more."""
    space, random = _space(), np.random.default_rng(0)
    depths = random.uniform(0, space.max_ratio, (CANDIDATES, len(space.groups)))
    names = [spec.name for spec in space.groups]
    kept = {f"c{i}": space.kept(dict(zip(names, map(float, row), strict=True))) for i, row in enumerate(depths)}
    models = _demo(tmp_path, **kept)
    dense = models.pop(DENSE)
    sessions = [
        compare_many(
            models,
            dense,
            MeasurementSetup(runner=OpenVINORunner(), device=HERE, seed=seed, time_limit_s=SESSION_S, throughput_s=0),
        )
        for seed in range(2)
    ]
    ratios = [[session.latencies[name].ratio for name in models] for session in sessions]
    rho = float(spearmanr(*ratios).statistic)
    rounds = [len(session.slots[DENSE]) for session in sessions]
    keep("order", {"kept": kept, "ratios": ratios, "rounds": rounds, "rho": rho}, HERE, not SHORT)
    assert SHORT or rho >= 0.98


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
    session = compare_many(
        models,
        dense,
        MeasurementSetup(
            runner=OpenVINORunner(precision=precision), device=HERE, time_limit_s=SESSION_S, throughput_s=0
        ),
    )
    ratios = [session.latencies[str(n)].ratio for n in widths]
    keep(f"steps_{precision}", {"step": step, "widths": widths, "ratios": ratios}, HERE, not SHORT)
    low, above, _, high = ratios
    assert SHORT or above - low > abs(high - above)
