"""One suite for all sources of energy, on trees and programs that look like the real ones, and on this host's own."""

import itertools
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.agent.measure.energy import sources
from prunefleet.agent.measure.energy.meters import Integral, NVMLMeter, RAPLMeter, TegrastatsMeter, watts
from prunefleet.agent.measure.energy.sources import Meter, find_meter, per_inference, source_of
from prunefleet.agent.measure.rounds import CallableNetwork
from prunefleet.objective.trial import Energy

from support.wait import wait_for

ORIN = (
    "11-24-2026 08:10:02 RAM 2448/7772MB (lfb 1x4MB) SWAP 0/3886MB (cached 0MB) CPU [1%@729,0%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] cpu@48.1C gpu@47.9C tj@48.5C "
    "VDD_IN 4940mW/4900mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1443mW/1440mW"
)
NANO = (
    "RAM 1903/3956MB (lfb 2x2MB) IRAM 0/252kB(lfb 252kB) CPU [9%@102,5%@102,off,off] EMC_FREQ 1%@408 GR3D_FREQ 0%@76 "
    "PLL@29C CPU@31.5C GPU@30C AO@38C thermal@30.75C POM_5V_IN 2532/2532 POM_5V_GPU 0/0 POM_5V_CPU 451/451"
)
XAVIER = (
    "RAM 1802/31927MB (lfb 7000x4MB) CPU [0%@1190] GR3D_FREQ 0%@318 AUX@33C CPU@34.5C GPU 465mW/465mW "
    "CPU 1397mW/1400mW SOC 1862mW/1862mW CV 0mW/0mW VDDRQ 310mW/310mW SYS5V 2280mW/2280mW"
)


def zone(root: Path, place: str, name: str, microjoules: int, most: int = 262_143_328_850) -> Path:
    """One zone of the kernel's tree of power caps."""
    folder = root / place
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{value}\n")
    return folder


@dataclass
class Source:
    """A meter, and what makes its counter rise by a joule or more."""

    meter: Meter
    spend: Callable[[], None]


def rapl(folder: Path, _: pytest.MonkeyPatch) -> Source:
    """Two packages, one about to wrap, with a sub-zone and a zone of the whole platform that are not to be counted."""
    counted = [zone(folder, "intel-rapl:0", "package-0", 262_143_000_000), zone(folder, "intel-rapl:1", "package-1", 5)]
    zone(folder, "intel-rapl:0:0", "core", 7)
    zone(folder, "intel-rapl:2", "psys", 9)

    def spend() -> None:
        for each in counted:
            file, most = each / "energy_uj", int((each / "max_energy_range_uj").read_text())
            file.write_text(f"{(int(file.read_text()) + 1_000_000) % (most + 1)}\n")

    return Source(RAPLMeter(folder), spend)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 999), min_size=1), st.integers(0, 999), st.integers(999, 2000))
def test_a_counter_that_wraps_loses_nothing(steps: list[int], start: int, most: int) -> None:
    """Whatever a package's counter starts at and however often it wraps, what was spent is what is read."""
    with TemporaryDirectory() as folder:
        place = zone(Path(folder), "intel-rapl:0", "package-0", start, most)
        with RAPLMeter(Path(folder)).reading() as joules:
            for step in steps:
                now = (int((place / "energy_uj").read_text()) + step) % (most + 1)
                (place / "energy_uj").write_text(f"{now}\n")
                found = joules()
        assert found == pytest.approx(sum(steps) / 1e6)


class NVMLError(Exception):
    """Stands for NVML's own."""


@dataclass
class FakeNVML:
    """Stands for the package: one GPU, whose counter is in millijoules."""

    millijoules: int = 10**9
    open: int = 0
    asked: list[object] = field(default_factory=list)

    def module(self) -> ModuleType:
        made = ModuleType("pynvml")
        made.__dict__.update(NVMLError=NVMLError, nvmlInit=self.start, nvmlShutdown=self.stop)
        made.__dict__.update(nvmlDeviceGetHandleByIndex=self.handle, nvmlDeviceGetHandleByUUID=self.handle)
        made.__dict__.update(nvmlDeviceGetTotalEnergyConsumption=lambda handle: self.millijoules)
        return made

    def start(self) -> None:
        self.open += 1

    def stop(self) -> None:
        self.open -= 1

    def handle(self, which: object) -> object:
        self.asked.append(which)
        return self


def installed(patch: pytest.MonkeyPatch, package: ModuleType | None) -> None:
    """NVML's package is this one from now on; None: it is not installed."""
    patch.setitem(sys.modules, "pynvml", package)
    patch.setitem(
        sys.modules, "prunefleet.agent.measure.energy.nvml", None
    )  # so that what is imported meanwhile goes in the end
    del sys.modules["prunefleet.agent.measure.energy.nvml"]


def nvml(_: Path, patch: pytest.MonkeyPatch) -> Source:
    """A made-up GPU."""
    fake = FakeNVML()
    installed(patch, fake.module())

    def spend() -> None:
        fake.millijoules += 1_500

    return Source(NVMLMeter(), spend)


def program(folder: Path, script: str) -> str:
    """An executable Python script."""
    path = folder / "tegrastats"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def tegrastats(folder: Path, _: pytest.MonkeyPatch) -> Source:
    """A program that prints an Orin's line again and again, with a power so high that joules come fast."""
    line = ORIN.replace("VDD_IN 4940mW", "VDD_IN 400000mW")
    path = program(folder, f"import time\nwhile True:\n    print({line!r}, flush=True)\n    time.sleep(0.01)\n")
    return Source(TegrastatsMeter(path), lambda: time.sleep(0.02))


@pytest.fixture(params=[rapl, nvml, tegrastats], ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """Every source in turn."""
    yield request.param(tmp_path, monkeypatch)


def test_joules_rise_with_what_is_spent(source: Source) -> None:
    """Never falling, in joules, also where the counter wraps."""
    with source.meter.reading() as joules:
        found = [joules()]
        for _ in range(5):
            source.spend()
            found.append(joules())
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert all(1 <= step < 100 for step in steps)


def test_a_meter_can_be_read_again(source: Source) -> None:
    """Nothing is left open by the first reading."""
    for _ in range(2):
        with source.meter.reading() as joules:
            before = joules()
            source.spend()
            assert joules() > before


def test_it_has_a_name_of_the_vocabulary_and_a_step(source: Source) -> None:
    """The name is the one that a sweep asks for, and the step what the length of a block follows."""
    assert source.meter.source in sources.METERS and 0 < source.meter.step_s <= 1


def test_energy_is_shared_out_by_inference(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidate and dense model are read from one source; twice the energy a call is twice the millijoules."""
    monkeypatch.setattr(sources, "BLOCK_S", 0.0)
    monkeypatch.setattr(sources, "STEPS_A_BLOCK", 0)

    def twice() -> None:
        source.spend()
        source.spend()

    networks = {"candidate": CallableNetwork(source.spend, "f32"), "dense": CallableNetwork(twice, "f32")}
    found = per_inference(source.meter, networks)
    candidate, dense = found["candidate"], found["dense"]
    assert candidate.source == dense.source == source.meter.source
    assert candidate.baseline_mj == dense.mj == dense.baseline_mj
    assert candidate.mj == pytest.approx(dense.mj / 2, rel=0.3) and candidate.mj >= 1000


def test_a_counter_that_stands_still_tells_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """No energy at all is no measurement; neither is half of one, where the source fails in the middle."""
    networks = {"candidate": CallableNetwork(source.spend, "f32"), "dense": CallableNetwork(source.spend, "f32")}
    monkeypatch.setattr(sources, "_blocks", lambda *_: {"candidate": 1.0, "dense": 0.0})
    assert per_inference(source.meter, networks) == {}

    def fails(*_: object) -> dict[str, float]:
        raise OSError("the counter is gone")

    monkeypatch.setattr(sources, "_blocks", fails)
    assert per_inference(source.meter, networks) == {}


def test_a_host_without_the_source_has_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No counters, no package, no program, or none asked for: None, and no error."""
    monkeypatch.setitem(sources.METERS, "rapl", lambda: RAPLMeter(tmp_path))  # type: ignore[misc]
    installed(monkeypatch, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [find_meter(name) for name in ("rapl", "nvml", "tegrastats", None)] == [None] * 4


def test_a_runner_has_the_source_that_sees_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's counter says nothing of a GPU, and nothing of what a program does elsewhere."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    monkeypatch.setitem(sources.METERS, "rapl", lambda: RAPLMeter(tmp_path))  # type: ignore[misc]
    monkeypatch.setenv("PATH", str(tmp_path))
    installed(monkeypatch, None)
    found = {name: source_of(name) for name in ("openvino_cpu", "torch_cpu", "torch_cuda", "openvino_gpu", "command")}
    assert found == dict.fromkeys(found, None) | {"openvino_cpu": "rapl", "torch_cpu": "rapl"}


def test_counters_that_may_not_be_read_are_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many kernels show them to root alone; and a driver may be missing although its package is there."""
    (zone(tmp_path, "intel-rapl:0", "package-0", 5) / "energy_uj").unlink()
    monkeypatch.setitem(sources.METERS, "rapl", lambda: RAPLMeter(tmp_path))  # type: ignore[misc]
    assert find_meter("rapl") is None
    fake = FakeNVML()

    def start() -> None:
        raise NVMLError("Driver Not Loaded")

    fake.start = start  # type: ignore[method-assign]
    installed(monkeypatch, fake.module())
    assert find_meter("nvml") is None


def test_a_program_that_says_no_power_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, or prints lines without a rail."""
    for script in ("print('RAM 1/2MB')", "import sys; sys.exit('tegrastats must run as root')"):
        path = program(tmp_path, script)
        monkeypatch.setitem(sources.METERS, "tegrastats", lambda path=path: TegrastatsMeter(path))  # type: ignore[misc]
        assert find_meter("tegrastats") is None


def test_a_program_that_ends_in_the_middle_is_noticed(tmp_path: Path) -> None:
    """Its last power would otherwise be taken to last for ever."""

    def fails(joules: Callable[[], float]) -> bool:
        try:
            joules()
        except OSError:
            return True
        return False

    end = tmp_path / "end"
    code = f"print({ORIN!r}, flush=True)\nwhile not pathlib.Path({str(end)!r}).exists(): time.sleep(0.01)"
    with TegrastatsMeter(program(tmp_path, f"import pathlib, time\n{code}")).reading() as joules:
        assert not fails(joules)
        end.touch()
        wait_for(lambda: fails(joules))


@pytest.mark.parametrize(("line", "power"), [(ORIN, 4.94), (NANO, 2.532), (XAVIER, 6.314), ("RAM 1/2MB", None)])
def test_power_is_that_of_the_whole_module(line: str, power: float | None) -> None:
    """The input rail where the board has one, else all rails together; memory and clocks are no rails."""
    assert watts(line) == (pytest.approx(power) if power else None)


def test_power_is_added_up_over_time() -> None:
    """Each reading lasts until the next."""
    now = iter([0.0, 2.0, 3.0, 4.0])
    integral = Integral(lambda: next(now))
    integral.add(5.0)
    integral.add(1.0)
    assert integral.joules() == 11.0
    assert integral.joules() == 12.0


def test_candidate_and_dense_model_cannot_have_two_sources() -> None:
    """A value holds both with one source: there is nothing to mix."""
    assert Energy(1.0, 2.0, "rapl").to_json() == {"mj": 1.0, "baseline_mj": 2.0, "source": "rapl"}


@pytest.mark.parametrize("name", sorted(sources.METERS))
def test_this_host_tells_or_has_no_meter(name: str) -> None:
    """The real thing, where there is one: its joules do not fall."""
    meter = find_meter(name)
    if meter is None:
        pytest.skip(f"{name} cannot be read on this host")
    with meter.reading() as joules:
        assert joules() <= joules()
