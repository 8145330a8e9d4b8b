"""What `prunefleet doctor` finds on a host: each finding with its remedy, on hosts made of files."""

import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunefleet.agent.__main__ import main
from prunefleet.agent.commands import doctor as command
from prunefleet.agent.health import host as module
from prunefleet.agent.health import runner_checks, sweep, wandb_server
from prunefleet.agent.health.finding import LEVELS, OK, PROBLEM, WARNING, Finding, graded
from prunefleet.agent.tasks.code.source import code_of
from prunefleet.objective.errors import BadInput

from support.login import signed_out

CPU = "sys/devices/system/cpu/cpu0"


def made(root: Path, **files: str) -> Path:
    """A host's files below `root`, by their path with __ for /."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def in_clock(root: Path, **files: str) -> dict[str, Finding]:
    return {
        each.name: each for each in module.clock(made(root, **{f"{CPU}/{key}": text for key, text in files.items()}))
    }


def test_a_finding_that_is_not_well_has_a_remedy() -> None:
    """And one that is well has none, so that whoever reads it knows at once whether there is something to do."""
    with pytest.raises(BadInput, match=r"finding\.remedy: got ''"):
        Finding("disk", WARNING, "full")
    with pytest.raises(BadInput, match=r"finding\.remedy: got 'wait'"):
        Finding("disk", OK, "empty", "wait")
    with pytest.raises(BadInput, match=r"finding\.level: got 'bad'"):
        Finding("disk", "bad", "full", "make room")
    assert str(Finding("disk", PROBLEM, "full", "make room")) == "problem disk: full: make room"
    assert str(graded("disk", "empty", (False, PROBLEM, "make room"))) == "ok      disk: empty"
    assert graded("disk", "half", (False, PROBLEM, "a"), (True, WARNING, "b")).remedy == "b"


@pytest.mark.parametrize(("mib", "level"), [(100, PROBLEM), (1500, WARNING), (8000, OK)])
def test_memory_is_judged_by_what_is_available(tmp_path: Path, mib: int, level: str) -> None:
    """A measurement needs half a GiB, a trial two."""
    text = f"MemTotal: {16 * 2**20} kB\nMemFree: 12 kB\nMemAvailable: {mib * 1024} kB\n"
    found = module.memory(made(tmp_path, proc__meminfo=text))
    assert found.level == level and found.found == f"{mib / 1024:.1f} of 16.0 GiB available"


@pytest.mark.parametrize(("gib", "level"), [(0.2, PROBLEM), (2.0, WARNING), (9.0, OK)])
def test_each_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float, level: str) -> None:
    """Folders that are not there yet count as their nearest parent; what is on one disk is one finding."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (found,) = module.disks(lambda path: (0, 0, int(gib * module.GIB)))
    assert (found.name, found.level) == ("disk (cache)", level) and f"{gib:.1f} GiB free" in found.found


def test_a_host_that_tells_nothing_of_its_clock_has_no_finding(tmp_path: Path) -> None:
    """What cannot be read is not judged: most virtual machines have neither governor nor sensor."""
    assert list(module.clock(tmp_path)) == []


def test_a_clock_that_is_held_down_is_told(tmp_path: Path) -> None:
    """A governor that saves, a limit below the processor's own, throttling and heat, each with its remedy."""
    found = in_clock(
        tmp_path / "a",
        cpufreq__scaling_governor="ondemand\n",
        cpufreq__cpuinfo_max_freq="2400000",
        cpufreq__scaling_max_freq="1200000",
        thermal_throttle__core_throttle_count="7",
    )
    assert {name: each.level for name, each in found.items()} == dict.fromkeys(
        ("governor", "clock limit", "temperature"), WARNING
    )
    assert "cpupower" in found["governor"].remedy and found["clock limit"].found == "1.2 of 2.4 GHz"
    assert found["temperature"].found == "no sensor, throttled 7 times since boot"
    well = in_clock(
        tmp_path / "b",
        cpufreq__scaling_governor="powersave",
        cpufreq__energy_performance_preference="performance",
        cpufreq__cpuinfo_max_freq="2400000",
        cpufreq__scaling_max_freq="2400000",
    )
    assert {each.level for each in well.values()} == {OK}
    sensor = made(
        tmp_path / "c", sys__class__hwmon__hwmon0__name="coretemp", sys__class__hwmon__hwmon0__temp1_input="91000"
    )
    (hot,) = module.clock(sensor)
    assert hot.level == WARNING and hot.found == "91 °C" and "cooling" in hot.remedy


def test_time_that_other_machines_took_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at the processor's ticks; a host without them is not judged."""
    ticks = iter(["cpu 0 0 0 100 0 0 0 0 0 0", "cpu 20 0 0 160 0 0 0 20 0 0"])
    monkeypatch.setattr(module, "_text", lambda path: next(ticks) if path.name == "stat" else "")
    monkeypatch.setattr("prunefleet.agent.measure.lock.holder", lambda: {"pid": 7, "device": "board"})
    stolen, lock = module.others(tmp_path, 0.0)
    assert (stolen.level, stolen.found) == (WARNING, "20.0%") and "shared" in stolen.remedy
    assert lock.level == OK and "process 7 measures board" in lock.found


def test_steadiness_is_a_number_of_the_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of equal pieces of work over their 10th percentile: 1 where each takes as long."""
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    found = module.steadiness(30.0)
    assert found.level == OK and found.found.startswith("median 1.00 times")
    assert math.isfinite(float(module.steadiness(3.0).found.split()[1]))


def test_what_the_kernel_shows_and_openvino_does_not_see_is_told(tmp_path: Path) -> None:
    """A driver that is missing, by its name; without such a file nothing is said."""
    names = {each.name for each in runner_checks.openvino(tmp_path)}
    assert names == {"openvino"}
    shown = {each.name: each for each in runner_checks.openvino(made(tmp_path, dev__accel__accel0=""))}
    assert shown["NPU"].level == WARNING and "driver" in shown["NPU"].remedy


def test_a_host_without_openvino_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an old aarch64 the last version that runs there, else the extra of a measuring host."""
    monkeypatch.setitem(sys.modules, "prunefleet.agent.measure.openvino_core", None)
    (found,) = runner_checks.openvino(tmp_path)
    assert found.level == PROBLEM and "prunefleet[measure]" in found.remedy
    monkeypatch.setattr(runner_checks.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(runner_checks.platform, "libc_ver", lambda: ("glibc", "2.31"))
    (found,) = runner_checks.openvino(tmp_path)
    assert found.remedy == "glibc 2.31 is too old for it: pip install 'openvino<2025.3'"


@pytest.mark.parametrize(
    ("torch", "level", "words"),
    [
        ({"version": "12.8", "there": True}, OK, "a card, torch 2"),
        ({"version": "12.8", "there": False}, PROBLEM, "install a driver"),
        ({"version": None, "there": False}, PROBLEM, "install torch's CUDA build"),
    ],
)
def test_a_card_that_torch_does_not_reach_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], level: str, words: str
) -> None:
    """The driver's fault or the build's; without a card torch is not even loaded."""
    cuda = SimpleNamespace(is_available=lambda: torch["there"], get_device_name=lambda: "a card")
    version = SimpleNamespace(cuda=torch["version"])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, version=version, __version__="2"))
    assert list(runner_checks.cuda(tmp_path)) == []
    monkeypatch.setattr(runner_checks.util, "find_spec", lambda name: True)
    (found,) = runner_checks.cuda(made(tmp_path, dev__nvidia0=""))
    assert found.level == level and words in str(found)


def test_a_server_that_is_not_named_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host may be looked at before it belongs to a fleet."""
    signed_out(monkeypatch, tmp_path)
    client, none = wandb_server.server()
    assert client.name == "wandb" and (none.name, none.level) == ("server", WARNING)


@pytest.mark.parametrize(("seconds", "level"), [(0, OK), (60, WARNING), (4000, PROBLEM)])
def test_a_clock_beside_the_servers(monkeypatch: pytest.MonkeyPatch, seconds: int, level: str) -> None:
    """A few seconds are the way's, a minute makes times on the page wrong, an hour has certificates refused."""
    from datetime import UTC, datetime, timedelta

    monkeypatch.setattr(wandb_server, "_date", lambda url: datetime.now(UTC) + timedelta(seconds=seconds))
    clock, link = wandb_server._answers()
    assert clock.level == level and link.level == OK
    assert "behind the server's" in clock.found or seconds == 0


class Runs:
    """A sweep of two runs of another host."""

    project, config = "me/lab", {"name": "s", "parameters": {"task": {"value": "tiny_task:TinyTask"}}}

    def __init__(self, path: str) -> None:
        if path == "me/lab/none":
            raise BadInput("sweep", path, "name a sweep")

    def runs(self) -> list[Any]:
        told = {"task_hash": "a" * 64, "data_hash": "b" * 64, "versions": {"openvino": "1.0"}}
        return [SimpleNamespace(state=state, config=told) for state in ("finished", "crashed")]


def test_a_sweep_whose_other_hosts_have_other_code_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, data and software are held against what the sweep's runs were made with."""
    monkeypatch.setattr(sweep, "Reader", Runs)
    found = {each.name: each for each in sweep.sweep("me/lab/s")}
    assert found["sweep"].found == "me/lab/s: 1 crashed, 1 finished" and found["measure"].level == OK
    for name in ("code", "data", "openvino"):
        assert found[name].level == WARNING, found[name]
    assert "2 of 2 runs had another" in found["code"].found and "1.0 elsewhere" in found["openvino"].found
    (none,) = sweep.sweep("me/lab/none")
    assert none.level == PROBLEM and none.remedy == "name a sweep"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"measure": {"parameters": {"runner": {"value": "openvino_npu"}}}}, "device: got 'NPU'"),
        ({"task": {"value": "no_such_module:Task"}}, "no_such_module"),
    ],
)
def test_a_sweep_that_this_host_cannot_serve_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], words: str
) -> None:
    """What it measures with is missing here, or its task cannot be loaded."""
    config = Runs.config | {"parameters": Runs.config["parameters"] | parameters}  # type: ignore[operator]
    monkeypatch.setattr(sweep, "Reader", type("Other", (Runs,), {"config": config}))
    problems = [str(each) for each in sweep.sweep("me/lab/s") if each.level == PROBLEM]
    assert len(problems) == 1 and words in problems[0]


@pytest.mark.parametrize(
    ("refuse", "level", "words"),
    [
        ("", OK, "the sweep's, aaaaaaaaaaaa, would be fetched and run here"),
        ("1", PROBLEM, "bring the sweep's, aaaaaaaaaaaa, to this host"),
    ],
)
def test_what_becomes_of_a_sweeps_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: str, level: str, words: str
) -> None:
    """Whether it would be fetched or is refused; nothing is fetched to look at it, and other code is not looked at."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    monkeypatch.setenv("PRUNEFLEET_NO_REMOTE_CODE", refuse)
    carried = {"code": {"value": f"code-{'a' * 64}:v0"}}
    config = Runs.config | {"parameters": Runs.config["parameters"] | carried}  # type: ignore[operator]
    monkeypatch.setattr(sweep, "Reader", type("Other", (Runs,), {"config": config}))
    found = {each.name: each for each in sweep.sweep("me/lab/s")}
    assert found["sweep's code"].level == level and words in str(found["sweep's code"])
    assert not {"code", "data", "task"} & set(found) and not list(tmp_path.iterdir())


def test_code_that_is_here_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's own copy is the sweep's: its task is loaded, and held against the runs'."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    own = code_of("tiny_task")
    assert own is not None
    named = {"code": {"value": own.sha256}}
    config = Runs.config | {"parameters": Runs.config["parameters"] | named}  # type: ignore[operator]
    monkeypatch.setattr(sweep, "Reader", type("Other", (Runs,), {"config": config}))
    found = {each.name: each for each in sweep.sweep("me/lab/s")}
    assert found["sweep's code"].level == OK and "here is the sweep's" in found["sweep's code"].found
    assert {"code", "data"} <= set(found)


def test_a_devices_queue_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no task and no data: the host would only measure."""
    monkeypatch.setattr(sweep, "Reader", type("Queue", (Runs,), {"config": {"name": "device-board1"}}))
    (found,) = sweep.sweep("me/lab/q")
    assert found.level == OK and "queue of board1" in found.found


def test_a_sweep_is_not_looked_at_where_its_server_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line says so, whether no server is named or none answers; the sweep itself is then not asked for."""
    for part in ("host", "devices", "reference"):
        monkeypatch.setattr(command, part, lambda: iter([]))
    signed_out(monkeypatch, tmp_path)
    unnamed = list(command.findings("me/lab/s"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    silent = list(command.findings("me/lab/s"))
    for found, level in ((unnamed, WARNING), (silent, PROBLEM)):
        assert [(each.name, each.level) for each in found[1:]] == [("server", level), ("sweep", PROBLEM)]
        assert found[-1].remedy == "mend what is said of the server first"


def test_a_problem_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """1 for a problem, 0 for warnings alone; as JSON the same findings, with a version."""
    warned = [Finding("a", OK, "well"), Finding("b", WARNING, "odd", "mend it")]
    monkeypatch.setattr(command, "findings", lambda sweep: iter(warned))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "ok      a: well\nwarning b: odd: mend it\n"
    monkeypatch.setattr(command, "findings", lambda sweep: iter([*warned, Finding("c", PROBLEM, "broken", "mend it")]))
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == 1 and [Finding.from_json(each).level for each in told["findings"]] == list(LEVELS)


def test_this_very_host_can_be_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every part answers on a real machine, and names itself once."""
    signed_out(monkeypatch, tmp_path)
    monkeypatch.setattr(command, "host", lambda: module.host(look_s=0.05))
    names = [each.name for each in command.findings(None)]
    assert len(names) == len(set(names)) and {"system", "memory", "processor", "openvino", "server"} <= set(names)
    assert os.environ.get("WANDB_API_KEY") is None
