"""One trial's process: what it tells the server, and its exit code, for each way to end."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tiny_task
from tiny_task import TinyTask
from torch import nn

from prunefleet.agent.commands import trial as worker
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.measure.samples import FILE as SAMPLES
from prunefleet.agent.measure.samples import read_samples
from prunefleet.agent.tasks.baseline import obtain
from prunefleet.agent.tasks.code.source import code_of
from prunefleet.agent.tracking.tracked_run import TrackedRun
from prunefleet.objective import host_outcomes
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, Measurement, Score, Skipped, TrialFailed

from support.trial_context import quickly

CONFIG: dict[str, Any] = {
    "task": "tiny_task:TinyTask",
    "objective": {"kind": "fastest", "max_drop": 0.05},
    "recipe": {"epochs": 0.2},
    "ratio": {"conv1": 0.5},
}


class Told:
    """Stands for the server: remembers what the worker says."""

    name, project = "run1", "me/project"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.noted: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.rows: list[Mapping[str, float]] = []
        self.published: list[str] = []
        self.files: dict[str, bytes] = {}
        self.said: list[object] = []
        self.finished: tuple[int, bool] | None = None

    def note(self, values: Mapping[str, Any]) -> None:
        self.noted |= values

    def log(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)

    def fetch(self, name: str, folder: Path) -> bool:
        return False

    def named(self, kind: str, sha256: str) -> None:
        return None

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        self.published.append(kind)
        if kind == "candidate":
            self.files = {file.name: file.read_bytes() for file in files}
        return "v0"

    def scored(self, measurement: Measurement, score: Score, seconds: Mapping[str, float]) -> None:
        self.said.append((measurement, score, dict(seconds)))

    def summarise(self, values: Mapping[str, Any]) -> None:
        self.summary |= values

    def skipped(self, skipped: Skipped, seconds: Mapping[str, float]) -> None:
        self.said.append((skipped, dict(seconds)))

    def incumbent(self) -> float | None:
        return None

    def failed(self, failure: Failure, seconds: Mapping[str, float]) -> None:
        self.said.append(failure)

    def refused(self, error: BadInput, stage: str) -> None:
        self.said.append((str(error), stage))

    def finish(self, exit_code: int, again: bool = False) -> None:
        self.finished = (exit_code, again)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the dense network, which a host trains once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(folder))
        quickly(patch, tmp_path_factory.mktemp("host") / "locks")
        obtain(TinyTask())
    return folder


@pytest.fixture
def run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a trial's process in this one, with a configuration; returns what it told and its exit code."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(shutil.copytree(cache, tmp_path / "cache")))
    quickly(monkeypatch, tmp_path / "host")
    monkeypatch.setattr(StopSignal, "listen", lambda self: self)

    def trial(config: Mapping[str, Any] = CONFIG, stop: StopSignal | None = None) -> tuple[Told, int]:
        told = Told(config)
        if stop:
            monkeypatch.setattr(worker, "StopSignal", lambda: stop)
        monkeypatch.setattr(worker.tracked_run, "start", lambda _: told)
        code = worker.main()
        assert told.finished and told.finished[0] == code
        return told, code

    return trial


def test_a_trial_tells_its_score_and_hands_over_its_files(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scored trial exits 0, says where it ran and with what, and publishes files without a pickle among them."""
    told, code = run()
    assert code == 0 and told.finished == (0, False)
    assert told.summary["arithmetic"] in ("f32", "bf16") and isinstance(told.summary["channels_last"], bool)
    assert told.noted["kept"] == {"conv1": 32, "conv2": 64, "conv3": 64}
    assert {"device", "host", "task_hash", "data_hash", "baseline_hash", "versions"} <= set(told.noted)
    assert {"prunefleet", "torch"} <= set(told.noted["versions"])
    measurement, score, seconds = told.said[0]
    assert measurement.accuracy.val > 0.8 and score.feasible
    assert {"imports", "task", "data", "baseline", "groups", "measure", "train", "publish"} <= set(seconds)
    assert set(told.files) == {
        "kept.json",
        "weights.safetensors",
        "model.xml",
        "model.bin",
        "benchmark.json",
        "samples.json.gz",
        "parity.json",
    }
    assert sum(map(len, told.files.values())) < 2_000_000
    assert not any(content.startswith((b"\x80", b"PK")) for content in told.files.values())
    assert Measurement.from_json(json.loads(told.files["benchmark.json"])["measurement"]) == measurement
    (tmp_path / "samples").write_bytes(told.files["samples.json.gz"])
    assert read_samples(tmp_path / "samples").latency == measurement.worst
    assert capsys.readouterr().out.count("\n") == 1


def test_a_trial_that_cannot_win_ends_well(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It exits 0 as skipped, in one line, and publishes nothing."""
    monkeypatch.setattr(Told, "incumbent", lambda self: 0.99)
    told, code = run()
    assert (code, told.finished, told.files) == (0, (0, False), {})
    skipped, seconds = told.said[0]
    assert skipped.incumbent == 0.99 and "measure" in seconds and "train" not in seconds
    assert capsys.readouterr().out.startswith("skipped: latency ratio")


def test_a_candidates_failure_is_an_answer(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite exits 0 and is not tried again."""
    monkeypatch.setattr(TinyTask, "lr", 1e30)
    told, code = run(CONFIG | {"recipe": {"epochs": 0.3}})
    assert (code, told.finished) == (0, (0, False)) and told.said[0].kind is FailureKind.DIVERGED


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), FailureKind.OUT_OF_MEMORY), (OSError(28, "No space left on device"), FailureKind.DISK_FULL)],
)
def test_a_hosts_failure_hands_the_run_back(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, kind: FailureKind
) -> None:
    """Out of memory or disk: exit 1, handed back to be tried again, one line on standard error."""

    def fit(*_: object) -> None:
        raise error

    monkeypatch.setattr(TinyTask, "fit", fit)
    told, code = run(CONFIG | {"recipe": {"epochs": 0.3}})
    assert (code, told.finished) == (1, (1, True)) and told.said[0].kind is kind
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_a_trial_that_takes_too_long_is_handed_back(run: Any) -> None:
    """Its time over it ends at its next stage: exit 1, to be tried again."""
    told, code = run(CONFIG | {"recipe": {"epochs": 0.2, "timeout_minutes": 1e-4}})
    assert (code, told.finished) == (1, (1, True)) and told.said[0].kind is FailureKind.TIMEOUT


def test_a_repeated_candidate_answers_from_this_host(run: Any) -> None:
    """The second run of one configuration measures and trains nothing, and says so."""
    first, _ = run()
    again, code = run()
    assert code == 0 and again.summary["recalled"] == ["measure", "train", "deploy"] and "recalled" not in first.summary
    assert again.said[0][0] == first.said[0][0] and set(again.files) == set(first.files)
    assert not {"export", "measure", "train", "evaluate"} & set(again.said[0][2])


def test_metrics_alone_leave_the_host_where_that_is_asked(run: Any, tmp_path: Path) -> None:
    """Neither the dense network nor the candidate's files are published; the latter stay in the cache."""
    told, code = run(CONFIG | {"upload": "metrics"})
    assert code == 0 and not told.published
    left = {path.name for path in (tmp_path / "cache" / "bundles" / "run1").iterdir()}
    assert left == {"kept.json", "weights.safetensors", "model.xml", "model.bin", "benchmark.json", "parity.json"} | {
        "samples.json.gz"
    }


def test_the_tasks_source_leaves_where_that_is_asked(tmp_path: Path) -> None:
    """With `upload: all` the candidate's files have it; with the default they do not (see above)."""
    for name in ("model.xml", "model.bin", SAMPLES):
        (tmp_path / name).touch()
    measured = SimpleNamespace(to_json=dict, kept={})
    exported = SimpleNamespace(xml=tmp_path / "model.xml")
    result: Any = SimpleNamespace(
        network=nn.Linear(1, 1), measurement=measured, score=measured, parity=0.0, exported=exported
    )
    told = Told({})
    worker.publish(cast(TrackedRun, told), result, tmp_path, "all", TinyTask())
    assert b"class TinyTask" in told.files["task.py"] and "weights.safetensors" in told.files


WATCHDOG = """
import sys, time
from prunefleet.agent.host.watchdog import Watchdog
dog = Watchdog(time.monotonic() + 0.2, lambda: print("told", flush=True))
dog.start()
if "off" in sys.argv:
    dog.call_off()
    sys.exit(0)
time.sleep(60)
"""


@pytest.mark.parametrize(("word", "ended"), [("hang", (1, "told\n")), ("off", (0, ""))])
def test_a_trial_that_hangs_is_ended(word: str, ended: tuple[int, str]) -> None:
    """The server is told and the process ends with code 1; a trial that ended by itself is let be."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHDOG, word], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == ended


def test_missing_data_is_the_hosts_failure(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without the data hands the run back: another one may have it."""

    def splits(self: TinyTask) -> None:
        raise BadInput("data", "x.gz", "replace this file")

    monkeypatch.setattr(TinyTask, "splits", splits)
    told, code = run()
    assert (code, told.said[0].kind, told.said[0].stage) == (1, FailureKind.DATA, "data")


def test_a_host_with_other_data_takes_no_trial(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sweep names its data and the task has a word for it: this host's failure, told in one line."""
    monkeypatch.setattr(TinyTask, "data_hash", lambda self: "a" * 64, raising=False)
    assert run(CONFIG | {"data": "a" * 64})[1] == 0
    told, code = run(CONFIG | {"data": "b" * 64})
    assert (code, told.said[0].kind, told.said[0].stage) == (1, FailureKind.DATA, "data")
    assert told.said[0].message.startswith(
        "data: got 'aaaaaaaaaaaa'; bring the sweep's data here, bbbbbbbbbbbb, or plan"
    )


def test_a_host_that_may_not_run_the_sweeps_code_takes_no_trial(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own copy is used where it is the same; else it is this host's failure, told in one line."""
    monkeypatch.setenv("PRUNEFLEET_NO_REMOTE_CODE", "1")
    own = code_of("tiny_task")
    assert own is not None and run(CONFIG | {"code": f"code-{own.sha256}:v0"})[1] == 0
    told, code = run(CONFIG | {"code": f"code-{'b' * 64}:v0"})
    assert (code, told.finished, told.said[0].stage) == (1, (1, True), "code")
    assert told.said[0].kind is FailureKind.DATA
    assert "bring the sweep's, bbbbbbbbbbbb, to this host" in told.said[0].message


def test_a_host_without_the_device_hands_the_run_back(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host of the fleet may have what this one has not; who supervises this one hears of it, and of answers."""
    path = tmp_path / "outcomes.jsonl"
    monkeypatch.setenv(host_outcomes.VARIABLE, str(path))
    assert run()[1] == 0
    told, code = run(CONFIG | {"measure": {"runner": "openvino_npu"}})
    found, _ = host_outcomes.read(path)
    assert [each.blames_host for each in found] == [False, True] and found[1].failure == told.said[0]
    assert (code, told.said[0].kind, told.said[0].stage) == (1, FailureKind.DEVICE, "device")
    assert "OpenVINO has" in told.said[0].message


@pytest.mark.parametrize(
    ("change", "words", "stage"),
    [
        ({"ratio": {"conv9": 0.5}}, "ratio.conv9", "groups"),
        ({"ratio": {"conv1": 1.5}}, "ratio.conv1", "start"),
        ({"task": "tiny_task:Gone"}, "Gone", "task"),
        ({"measure": {"precision": "f8"}}, "f8", "start"),
        ({"extra": 1}, "unknown key extra", "start"),
    ],
)
def test_a_wrong_sweep_exits_2(
    run: Any, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str, stage: str
) -> None:
    """What no host can do is told in one line, exits 2, and is not tried again: every trial would end so."""
    told, code = run(CONFIG | change)
    assert code == 2 and told.finished == (2, False)
    assert words in told.said[0][0] and told.said[0][1] == stage
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stop_by_the_server_ends_well(run: Any) -> None:
    """The server's stop exits 0 and hands nothing back; it is not the candidate's failure."""
    stop = StopSignal()
    stop.by_server.set()
    told, code = run(stop=stop)
    assert (code, told.finished) == (0, (0, False)) and told.said[0].kind is FailureKind.INTERRUPTED


def test_a_signal_hands_the_run_back(run: Any) -> None:
    """SIGTERM exits 1 and hands the run back."""
    told, code = run(stop=StopSignal(signal_name="SIGTERM"))
    assert (code, told.finished) == (1, (1, True)) and told.said[0].message == "stopped by SIGTERM"


def test_a_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a server there is nobody to tell: exit 1 and one line."""

    def start(_: StopSignal) -> None:
        raise TrialFailed(Failure(FailureKind.SERVER, "start", "http://127.0.0.1:9 does not answer"))

    monkeypatch.setattr(StopSignal, "listen", lambda self: self)
    monkeypatch.setattr(worker.tracked_run, "start", start)
    assert worker.main() == 1
    assert capsys.readouterr().err == "start: server: http://127.0.0.1:9 does not answer\n"


def test_signals_are_remembered_and_a_second_one_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal is a request; afterwards the signal has its usual effect again."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    stop = StopSignal().listen()
    assert stop.reason() is None
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert stop.reason() == "stopped by SIGTERM" and handlers[signal.SIGTERM] is signal.SIG_DFL
    handlers[signal.SIGINT](signal.SIGINT, None)
    assert handlers[signal.SIGINT] is signal.default_int_handler


IMPORTED = """
import sys, tempfile
from pathlib import Path
import torch
import prunefleet.agent.trial.run
from prunefleet.agent.compress.prune import count_macs
from prunefleet.agent.measure.export import export
layer, example = torch.nn.Linear(1, 1), torch.zeros(1, 1)
count_macs(layer, example)
with tempfile.TemporaryDirectory() as folder:
    export(layer, example, Path(folder))
dear = ("timm", "torchvision", "torch._dynamo", "torch.distributed.tensor", "sympy", "nncf")
print([name for name in dear if name in sys.modules])
"""


def test_a_trial_imports_no_more_than_it_needs() -> None:
    """Seconds of every trial: no compiler and no algebra to count and export, nor what tasks or INT8 alone need."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_the_tiny_task_is_small() -> None:
    """The task of the tests is what a user would write: at most 40 lines."""
    lines = Path(tiny_task.__file__).read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_what_is_published_has_all_the_time() -> None:
    """The time limit is the trial's own: once it is measured, a server that is away costs nothing of it."""
    watch = StageWatch()
    with (
        worker.limited(1e-9, cast(TrackedRun, Told(CONFIG)), watch),
        pytest.raises(TrialFailed, match="timeout_minutes"),
    ):
        watch.check()
    with watch.during("publish"):
        watch.check()
