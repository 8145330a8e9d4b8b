"""A program of the user's as a runner: how it is called, and how each thing that it can do wrong is told."""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunefleet.agent.measure import lock
from prunefleet.agent.measure.benchmark import MeasurementSetup, compare
from prunefleet.agent.measure.device import fingerprint
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.runners import base, trtexec
from prunefleet.agent.measure.runners import command as command_runner
from prunefleet.agent.measure.runners.command import VARIABLE, CommandRunner
from prunefleet.agent.measure.runners.registry import runner_for
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

# As NVIDIA's samples/common/sampleReporting.cpp writes it for --exportTimes: one entry an inference.
EXPORTED_TIMES = """[
  { "startEnqMs" : 0.0107, "endEnqMs" : 0.241, "startH2dMs" : 0.0109, "endH2dMs" : 0.0552, "startComputeMs" : 0.0553
, "endComputeMs" : 1.2553, "startD2hMs" : 1.2554, "endD2hMs" : 1.2604, "h2dMs" : 0.0443, "computeMs" : 1.2
, "d2hMs" : 0.005, "latencyMs" : 9.5 }
, { "startEnqMs" : 1.2707, "endEnqMs" : 1.401, "startH2dMs" : 1.2709, "endH2dMs" : 1.3152, "startComputeMs" : 1.3153
, "endComputeMs" : 2.0153, "startD2hMs" : 2.0154, "endD2hMs" : 2.0204, "h2dMs" : 0.0443, "computeMs" : 0.7
, "d2hMs" : 0.005, "latencyMs" : 0.7493 }
, { "startEnqMs" : 2.0307, "endEnqMs" : 2.161, "startH2dMs" : 2.0309, "endH2dMs" : 2.0752, "startComputeMs" : 2.0753
, "endComputeMs" : 2.7753, "startD2hMs" : 2.7754, "endD2hMs" : 2.7804, "h2dMs" : 0.0443, "computeMs" : 0.7
, "d2hMs" : 0.005, "latencyMs" : 0.7495 }
]
"""
FAKE_TRTEXEC = """
import json, sys
from pathlib import Path
folder = Path(__file__).parent
options = dict(each[2:].partition("=")[::2] for each in sys.argv[1:])
with (folder / "asked").open("a") as log:
    log.write(json.dumps(options) + "\\n")
if "loadEngine" in options and Path(options["loadEngine"]).read_text() != "engine":
    print("[11/24/2026-08:00:00] [E] The engine plan file is not compatible with this version of TensorRT")
    print("&&&& FAILED TensorRT.trtexec")
    sys.exit(1)
if "saveEngine" in options:
    Path(options["saveEngine"]).write_text("engine")
if "exportTimes" in options:
    entry = {"startComputeMs": 0, "latencyMs": 0.5, "computeMs": 0.4}
    Path(options["exportTimes"]).write_text(json.dumps([entry] * int(options["iterations"])))
print("[I] Throughput: 1840.31 qps")
"""


def program(path: Path, script: str) -> Path:
    """An executable Python script."""
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Exported:
    """Files that stand for a network."""
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    return Exported(tmp_path / "model.xml", tmp_path / "model.onnx", "f32", 0, (1, 1, 8, 8))


@pytest.fixture
def saying(tmp_path: Path, model: Exported) -> Callable[[str], object]:
    """A loaded network whose program runs the script given."""

    def load(script: str) -> object:
        path = program(tmp_path / "program", script)
        return CommandRunner(f"{path} {{ir}} {{calls}} {{warm_up}} {{precision}} {{threads}}", "f16", 3).load(model)

    return load


def test_it_gets_the_network_and_what_is_asked_for(saying: Callable[[str], object], model: Exported) -> None:
    """File, calls, warm-up of at least 20, precision and threads stand where the command says; no shell is between."""
    script = """
import json, sys
from pathlib import Path
Path(sys.argv[1]).with_name("argv").write_text(json.dumps(sys.argv[1:]))
print("some noise")
print(json.dumps({"samples_ms": [0.5] * 30, "precision": sys.argv[4]}))
"""
    network = saying(script)
    assert np.array_equal(network.samples(30), [0.5] * 30) and network.precision == "f16"  # type: ignore[attr-defined]
    argv = json.loads(model.xml.with_name("argv").read_text())
    assert argv == [str(model.xml), "30", "20", "f16", "3"]
    assert network.throughput(1.0) == 0  # type: ignore[attr-defined]  # not asked for: there is no {what}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; sys.exit('no such board')", "ended with 1: no such board"),
        ("print('done')", "printed 'done' last; a line of JSON was expected"),
        ("pass", "printed '' last"),
        ("print('[1, 2]')", "a line of JSON was expected"),
        ("print('{}')", "samples_ms: got 0 entries; 30 numbers above 0 were asked for"),
        ("print('{\"samples_ms\": [0.5]}')", "got 1 entries"),
        ("import json; print(json.dumps({'samples_ms': [0.5] * 29 + [float('nan')]}))", "30 numbers above 0"),
        ("import json; print(json.dumps({'samples_ms': [0.5] * 29 + ['x']}))", "30 numbers above 0"),
    ],
)
def test_what_a_program_does_wrong_is_one_line(saying: Callable[[str], object], script: str, words: str) -> None:
    """A failure of the device at stage measure, which says what was expected."""
    with pytest.raises(TrialFailed) as failed:
        saying(script).samples(30)  # type: ignore[attr-defined]
    failure = failed.value.failure
    assert failure.kind is FailureKind.DEVICE and failure.stage == "measure"
    assert words in failure.message and "\n" not in failure.message


def test_a_program_that_is_not_there_or_hangs_is_the_hosts_failure(
    saying: Callable[[str], object], model: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended after a while."""
    with pytest.raises(TrialFailed, match="cannot be started: No such file"):
        CommandRunner("/none/such {ir}").load(model).samples(1)
    monkeypatch.setattr(command_runner, "PATIENCE_S", 0.2)
    with pytest.raises(TrialFailed, match="took more than"):
        saying("import time; time.sleep(600)").samples(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", r"write a command with \{onnx\} or \{ir\}"),
        ("bench --fast", r"write a command with \{onnx\} or \{ir\}"),
        ("bench {model}", r"use \{onnx\}, \{ir\}, \{calls\}"),
        ("bench 'half", "mend the command: No closing quotation"),
        ("bench {ir", "mend the command"),
    ],
)
def test_a_command_that_cannot_work_is_bad_input(monkeypatch: pytest.MonkeyPatch, command: str, words: str) -> None:
    """It names the variable, before anything is measured."""
    monkeypatch.setenv(VARIABLE, command)
    with pytest.raises(BadInput, match=f"{VARIABLE}: got .*{words}"):
        runner_for("command")


def test_a_sitting_with_a_program_alternates_its_runs(
    tmp_path: Path, model: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the program is a slot: networks take turns, a few rounds each, and the ratio is theirs."""
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    script = """
import json, random, sys
from pathlib import Path
path, calls, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with (path.parent / "order").open("a") as log:
    log.write(path.stem + what + "\\n")
times = [random.gauss(0.5 if path.stem == "half" else 1.0, 0.001) for _ in range(calls)]
print(json.dumps({"samples_ms": times} if what == "latency" else {"throughput_fps": 2500}))
"""
    runner = CommandRunner(f"{program(tmp_path / 'program', script)} {{onnx}} {{calls}} {{what}}")
    (tmp_path / "half.onnx").write_bytes(b"onnx")
    half = Exported(tmp_path / "half.xml", tmp_path / "half.onnx", "f32", 0, (1, 1, 8, 8))
    latency = compare(
        half, model, MeasurementSetup(runner=runner, device=fingerprint(kind="COMMAND"), time_limit_s=0.01)
    ).latency
    assert latency.ratio == pytest.approx(0.5, rel=0.01) and latency.throughput_fps == 2500 and not latency.noisy
    assert latency.settings["command"] == runner.command and latency.device.kind == "command"
    order = (tmp_path / "order").read_text().split()
    assert order[:2] == ["modellatency", "halflatency"] and order[-2:] == ["modelthroughput", "halfthroughput"]
    assert 4 <= latency.n <= 8 and order.count("halflatency") == latency.n + 1
    assert all(
        set(order[place : place + 2]) == {"modellatency", "halflatency"} for place in range(2, len(order) - 2, 2)
    )


def test_times_of_trtexec_become_samples() -> None:
    """Latency with both copies, as it is in the file that --exportTimes writes."""
    assert trtexec.samples(json.loads(EXPORTED_TIMES)) == [9.5, 0.7493, 0.7495]


def _trtexec(tmp_path: Path, what: str = "latency") -> list[str]:
    path = program(tmp_path / "trtexec", FAKE_TRTEXEC)
    return ["--onnx", str(tmp_path / "model.onnx"), "--calls", "5", "--what", what, "--trtexec", str(path)]


def asked(tmp_path: Path) -> list[dict[str, str]]:
    """Options of each run of trtexec."""
    return [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]


def test_trtexec_is_asked_for_latency(tmp_path: Path, model: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    """One stream, f32 that is not rounded; the warm-up is cut off; the engine is built once and then loaded."""
    for _ in range(2):
        assert trtexec.main(_trtexec(tmp_path)) == 0
        assert json.loads(capsys.readouterr().out) == {"samples_ms": [0.5] * 5, "precision": "f32"}
    build, load = asked(tmp_path)
    assert build["onnx"] == str(model.onnx) and "noTF32" in build and build["iterations"] == "25"
    assert build["infStreams"] == "1" and build["saveEngine"] == load["loadEngine"] and "onnx" not in load


def test_trtexec_is_asked_for_throughput(tmp_path: Path, model: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    """In a run of its own with several streams."""
    assert trtexec.main(_trtexec(tmp_path, "throughput")) == 0
    assert json.loads(capsys.readouterr().out) == {"throughput_fps": 1840.31}
    assert asked(tmp_path)[0]["infStreams"] == "2"


def test_an_engine_of_another_version_is_built_anew(
    tmp_path: Path, model: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where building fails, or there is no trtexec, one line says why."""
    (tmp_path / "model-f32.engine").write_text("another version's")
    assert trtexec.main(_trtexec(tmp_path)) == 0
    assert [sorted({"loadEngine", "saveEngine"} & set(each)) for each in asked(tmp_path)] == [
        ["loadEngine"],
        ["saveEngine"],
    ]
    capsys.readouterr()
    arguments = _trtexec(tmp_path)
    program(tmp_path / "trtexec", "print('[E] out of memory')\nprint('&&&& FAILED')\nraise SystemExit(1)")
    (tmp_path / "model-f32.engine").unlink()
    assert trtexec.main(arguments) == 1
    assert capsys.readouterr().err == "[E] out of memory\n"
    assert trtexec.main([*arguments[:-1], "/none/such"]) == 127
    assert capsys.readouterr().err == "/none/such is not there: name it with --trtexec\n"


def test_the_adapter_needs_nothing_but_python() -> None:
    """It imports the standard library alone, so that a board with trtexec can run it."""
    source = Path(trtexec.__file__).read_text()
    modules = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    assert modules <= sys.stdlib_module_names


def test_the_adapter_warms_up_as_every_runner() -> None:
    """Its default number of warm-up calls is that of the runners' base, which it cannot import."""
    assert trtexec.WARM_UP_CALLS == base.WARM_UP_CALLS
