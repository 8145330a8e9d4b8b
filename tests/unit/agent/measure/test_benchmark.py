"""The ratio is one of like with like, certain to what it says, and honest where it is not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.measure import benchmark, lock, rounds
from prunefleet.agent.measure.benchmark import MeasurementSetup, compare, compare_many
from prunefleet.agent.measure.device import channel_step, fingerprint
from prunefleet.agent.measure.export import export
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.intervals import drift, ratio_drift, ratio_interval, redraw
from prunefleet.agent.measure.runners import base
from prunefleet.agent.measure.runners.base import OpenVINORunner
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Conditions

from support.networks import Residual

HERE = fingerprint()
IMAGE = torch.zeros(1, 1, 16, 16)


@pytest.fixture(autouse=True, scope="module")
def own_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of locks of our own: nothing else on this machine is waited for."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock.tempfile, "gettempdir", lambda: str(folder))
        yield folder


@dataclass
class Clock:
    """A clock that only moves when something runs."""

    now: int = 0

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9


@dataclass(frozen=True)
class FakeRunner:
    """Stands in where candidates are bare callables."""

    device: str = "fake"
    precision: str = "f32"

    def settings(self) -> dict[str, str]:
        return {"runner": "fake", "streams": "1", "threads": "1"}

    def load(self, model: object) -> None:
        raise AssertionError("callables are not loaded")


FAKE = MeasurementSetup(FakeRunner(), HERE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The benchmark's own clock."""
    made = Clock()
    monkeypatch.setattr(benchmark, "time", made)
    monkeypatch.setattr(rounds, "time", made)
    monkeypatch.setattr(base, "time", made)
    return made


def taking(clock: Clock, ms: Callable[[], float]) -> Callable[[], None]:
    """A network whose call takes that long."""

    def call() -> None:
        clock.now += round(1e6 * ms())

    return call


def test_the_ratio_is_that_of_the_networks_not_of_the_neighbours(clock: Clock) -> None:
    """Interruptions that hit a third of the calls leave ratio and interval right."""
    random = np.random.default_rng(0)

    def loaded(ms: float) -> float:
        return ms * random.normal(1, 0.01) + (3 if random.random() < 0.3 else 0)

    latency = compare(taking(clock, lambda: loaded(0.4)), taking(clock, lambda: loaded(1.0)), FAKE).latency
    assert latency.ratio == pytest.approx(0.4, rel=0.01)
    assert latency.ratio_lo < 0.4 * 1.005 and latency.ratio_hi > 0.4 * 0.995
    assert latency.p50_ms >= latency.p10_ms and latency.baseline_p10_ms == pytest.approx(1, rel=0.03)
    assert not latency.noisy


def test_rounds_go_on_until_the_interval_is_tight_or_time_is_over(clock: Clock) -> None:
    """A steady host needs the fewest rounds; an unsteady one uses its time, and says how wide the interval stayed."""
    steady = compare(taking(clock, lambda: 0.5), taking(clock, lambda: 1.0), FAKE).latency
    assert steady.n == 400 and steady.ratio == 0.5
    assert (steady.ratio_lo, steady.ratio_hi) == pytest.approx((0.5 * 0.9804, 0.5 * 1.0196))
    random = np.random.default_rng(0)

    def uneven() -> float:
        return float(random.lognormal(0, 0.1))

    began = clock.now
    loose = compare(taking(clock, uneven), taking(clock, uneven), replace(FAKE, time_limit_s=2.0)).latency
    assert loose.n > 200 and loose.ratio_hi > loose.ratio and not loose.noisy
    assert 2.0 < (clock.now - began) / 1e9 < 3.0


def test_a_noisy_host_gets_three_times_as_long(clock: Clock) -> None:
    """And the result says that it is noisy."""
    random = np.random.default_rng(0)

    def wild() -> float:
        return float(random.lognormal(0, 2.0))

    began = clock.now
    latency = compare(taking(clock, wild), taking(clock, wild), replace(FAKE, time_limit_s=1.0)).latency
    assert latency.noisy and 3.0 < (clock.now - began) / 1e9 < 6.0


def test_a_ratio_that_moved_in_the_middle_of_a_sitting_is_seen() -> None:
    """Both halves agree, yet a while that was fast for the candidate alone decides its fastest tenth."""
    steady, fast = np.ones(200), np.ones(200)
    fast[85:115] = 0.8
    assert ratio_drift(steady, steady) == 0
    assert ratio_drift(fast, steady) == pytest.approx(0.2)
    assert ratio_drift(fast, fast) == 0, "the clock's change is no change of the ratio"


def test_a_dense_model_that_drifts_is_called_noisy(clock: Clock) -> None:
    """More than a tenth between the first and the second half of the slots."""
    growing = taking(clock, lambda: 1 + clock.now / 1e9)
    latency = compare(taking(clock, lambda: 0.5), growing, FAKE).latency
    assert latency.noisy
    assert drift(np.array([1.0, 1.0, 1.2, 1.2])) == pytest.approx(0.2)


def test_an_interval_counts_loads_and_not_only_slots() -> None:
    """Four loads that differ by 2 % leave the ratio as uncertain as that, however many slots there are."""
    loads = np.tile([1.0, 1.02, 0.98, 1.0], 100)
    ratio, low, high = ratio_interval(0.5 * loads, np.ones(400), loads=4)
    assert ratio == pytest.approx(0.49) and high - low > 0.009
    assert redraw(400, 4, 50, seed=0).shape == (50, 400) and redraw(8, 4, 9, 0).max() < 8
    *_, narrow = ratio_interval(0.5 * loads, np.ones(400), loads=1)
    assert narrow < high


def test_intervals_of_one_sitting_cover_its_truth() -> None:
    """Over 100 seeded sessions of networks that a spell slows alike, the 95 % interval holds the true ratio in 85."""
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        spell = random.lognormal(0, 0.3, 80)
        ours, dense = (spell * random.lognormal(0, 0.02, 80) for _ in range(2))
        ratio, low, high = ratio_interval(0.5 * ours, dense, loads=4, draws=200, seed=seed)
        assert low <= ratio <= high
        covered += low <= 0.5 <= high
    assert covered >= 85


def test_a_ratio_that_changes_in_the_middle_is_not_settled(clock: Clock) -> None:
    """The rounds go on although each half is steady, and the result is called noisy."""
    until = 0.75e9  # warm-up of all loads takes half a second of it
    changing = taking(clock, lambda: 0.5 if clock.now < until else 0.6)
    latency = compare(changing, taking(clock, lambda: 1.0), replace(FAKE, time_limit_s=1.0)).latency
    assert latency.noisy and latency.n > 200  # a second has 125


def test_warm_up_calls_do_not_count(clock: Clock) -> None:
    """At least twenty calls of each network come before the first slot."""
    calls = iter([50.0] * 20 + [1.0] * 100000)
    latency = compare(taking(clock, lambda: next(calls)), taking(clock, lambda: 1.0), FAKE).latency
    assert latency.p99_ms == 1.0


def test_slow_networks_get_slots_of_one_call_and_do_not_overstay(clock: Clock) -> None:
    """A call of a tenth of a second: the time limit ends the rounds before the usual number is reached."""
    latency = compare(taking(clock, lambda: 50), taking(clock, lambda: 100), FAKE).latency
    assert 15 <= latency.n < 40 and latency.ratio == 0.5


def test_one_sitting_compares_several(clock: Clock) -> None:
    """All against the same slots of the dense model, which is listed too, with intervals in milliseconds."""
    models = {"half": taking(clock, lambda: 0.5), "same": taking(clock, lambda: 1.0)}
    session = compare_many(models, taking(clock, lambda: 1.0), FAKE)
    assert {name: latency.ratio for name, latency in session.latencies.items()} == {"dense": 1, "half": 0.5, "same": 1}
    assert {latency.baseline_p10_ms for latency in session.latencies.values()} == {1.0}
    assert session.interval_ms("half") == (0.5, 0.5)
    assert len(session.slots["half"]) == session.latencies["half"].n <= len(session.calls["half"])


def test_a_candidate_called_dense_is_refused(clock: Clock) -> None:
    """That is the dense model's name, and its latency would be taken for the candidate's."""
    call = taking(clock, lambda: 1.0)
    with pytest.raises(BadInput, match="candidates: got 'dense'"):
        compare_many({"dense": call}, call, FAKE)


def test_a_pruned_network_is_measured_faster(tmp_path: Path) -> None:
    """The real thing, once: OpenVINO at f32 and, for the dense model, at the device's default precision."""
    network = Residual(64, (64, 64)).eval()
    smaller = prune(network, IMAGE, find_groups(network, IMAGE), {"stem": 16, "down_0": 16, "down_1": 16})
    dense = export(network, IMAGE, tmp_path, name="dense")
    models = {"pruned": export(smaller.network, IMAGE, tmp_path, name="pruned"), "default": dense}
    free = {"default": OpenVINORunner(precision="default")}
    session = compare_many(
        models, dense, MeasurementSetup(runner=OpenVINORunner(), runners=free, device=HERE, time_limit_s=1.0)
    )
    pruned, default = session.latencies["pruned"], session.latencies["default"]
    assert pruned.ratio_lo <= pruned.ratio <= pruned.ratio_hi < 0.7
    assert pruned.precision == "f32" and default.precision in ("f32", "bf16", "f16")
    assert pruned.throughput_fps > 0 and pruned.device == HERE


def test_a_sitting_says_how_it_was_run_and_how_the_host_was(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every latency has the runner's settings and the host's conditions before and after, as read under the lock."""
    read: list[Conditions] = []

    def conditions() -> Conditions:
        assert lock.holder() is not None
        read.append(Conditions(load=float(len(read)), cpu_mhz=2000.0))
        return read[-1]

    monkeypatch.setattr(benchmark, "conditions", conditions)
    session = compare(taking(clock, lambda: 0.5), taking(clock, lambda: 1.0), FAKE)
    for latency in session.latencies.values():
        assert (latency.before, latency.after) == (Conditions(0.0, 2000.0), Conditions(1.0, 2000.0))
        assert latency.settings == {"runner": "fake", "streams": "1", "threads": "1"} and latency.energy is None
    assert session.latency is session.latencies["candidate"]


def test_single_calls_tell_the_higher_percentiles(clock: Clock) -> None:
    """One call in twenty is slow: the median does not see it, the 99th percentile does."""
    calls = iter([*([1.0] * 40), *(([1.0] * 19 + [9.0]) * 10000)])
    latency = compare(taking(clock, lambda: next(calls)), taking(clock, lambda: 1.0), FAKE).latency
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (1.0, 1.0, 9.0)


def test_slots_take_turns_in_random_order(clock: Clock) -> None:
    """Each round runs every network once; which goes first changes, and a seed repeats it."""

    def order(seed: int) -> list[str]:
        ran: list[str] = []

        def network(name: str) -> Callable[[], None]:
            def call() -> None:
                clock.now += 10_000_000  # a slot of one call
                ran.append(name)

            return call

        compare(network("c"), network("d"), replace(FAKE, seed=seed, max_rounds=40))
        return ran

    first = order(0)
    rounds_run = [tuple(first[-80:][place : place + 2]) for place in range(0, 80, 2)]
    assert all(sorted(each) == ["c", "d"] for each in rounds_run) and len(set(rounds_run)) == 2
    assert order(0) == first and order(1) != first


def test_throughput_is_a_run_of_its_own(clock: Clock, tmp_path: Path) -> None:
    """It is what the loaded network counts while requests queue, whatever one call takes."""

    class Queueing(rounds.CallableNetwork):
        def throughput(self, seconds: float) -> float:
            return 7777.0 if seconds else 0.0

    @dataclass(frozen=True)
    class Runs(FakeRunner):
        def load(self, model: object) -> rounds.CallableNetwork:  # type: ignore[override]
            return Queueing(taking(clock, lambda: 1.0), "f32")

    model = Exported(tmp_path / "none.xml", None, "f32", 0, (1, 1, 16, 16))
    session = compare_many({"a": model}, model, MeasurementSetup(runner=Runs(), device=HERE))
    assert {latency.throughput_fps for latency in session.latencies.values()} == {7777.0}
    without = compare_many({"a": model}, model, MeasurementSetup(runner=Runs(), device=HERE, throughput_s=0))
    assert without.latencies["a"].throughput_fps == 0


def test_nothing_trains_while_it_measures(clock: Clock) -> None:
    """The host's lock is held during the slots and free before and after."""
    seen = set()

    def call() -> None:
        clock.now += 100_000
        seen.add(lock.holder() is not None)

    compare(call, call, replace(FAKE, max_rounds=40))
    assert seen == {True} and lock.holder() is None


def test_the_fingerprint_names_host_processor_and_versions() -> None:
    """As a valid device, with what was installed."""
    assert HERE.name == "local" and HERE.kind == "cpu" and HERE.cpu and HERE.cores >= 1 and HERE.memory_gb > 0
    assert {"python", "openvino", "torch"} <= set(HERE.versions)


@pytest.mark.parametrize(
    ("kind", "precision", "flags", "step"),
    [
        ("cpu", "f32", "avx2 avx512f", 16),
        ("cpu", "f32", "avx2", 8),
        ("cpu", "f32", "asimd", 8),
        ("cpu", "bf16", "avx512f avx512_bf16 amx_bf16", 32),
        ("cpu", "bf16", "avx512f avx512_bf16", 16),
        ("cpu", "f32", "avx512f amx_bf16", 16),
        ("cpu", "f32", "", 16),
        ("gpu", "f32", "avx2", 16),
    ],
)
def test_the_channel_grid_follows_the_vector_width(kind: str, precision: str, flags: str, step: int) -> None:
    """Vectors of 16 floats on AVX-512, 8 on AVX2 and Arm, tiles of 32 for bf16 on AMX."""
    assert channel_step(replace(HERE, kind=kind), precision, frozenset(flags.split())) == step
