"""What a tracked run tells the server, in the vocabulary of a run; and files that are written whole or not at all."""

import errno
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb.errors import AuthenticationError, CommError

from prunefleet.agent.__main__ import main
from prunefleet.agent.host.cache_files import new_folder, only_one, replace_file
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.tracking import retry, tracked_run
from prunefleet.agent.tracking.tracked_run import TrackedRun
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import score
from prunefleet.objective.trial import (
    Accuracy,
    Candidate,
    Device,
    Failure,
    FailureKind,
    Latency,
    Measurement,
    Skipped,
    TrialFailed,
)

DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {})
LATENCY = Latency(DEVICE, "f32", 0.5, 0.4, 0.6, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 0.0, 40)
MEASURED = Measurement(Candidate({"a": 0.5}), {"a": 8}, Accuracy("top1", 0.92, 0.9), 0.01, (LATENCY,), 1, 2, 3)


class Run:
    """Stands for wandb's run."""

    id, entity, project, sweep_id = "r1", "me", "p", "s1"

    def __init__(self, **summary: Any) -> None:
        self.summary: dict[str, Any] = dict(summary)
        self.config: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.ended: list[object] = []

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def mark_preempting(self) -> None:
        self.ended.append("preempting")

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def _tracked(**summary: Any) -> tuple[TrackedRun, Run]:
    run = Run(**summary)
    return TrackedRun(run), run  # type: ignore[arg-type]


def test_a_score_is_told_in_summary_and_history() -> None:
    """The summary has what was measured, without what was not; the history has a row for charts and early stops."""
    tracked, run = _tracked()
    tracked.scored(MEASURED, score(MEASURED, Goal(max_drop=0.02)), {"train": 1.23456})
    assert run.summary["outcome"] == "scored" and run.summary["latency_ratio_hi"] == 0.6
    assert run.summary["seconds_train"] == 1.235 and run.summary["score_terms"]["drop"] == 0.01
    assert not {"test_top1", "energy_mj", "throughput_fps", "failure_kind"} & set(run.summary)
    assert set(run.rows[0]) == {"score", "latency_ratio", "val_top1"}


def test_a_second_attempt_clears_the_first_ones_failure() -> None:
    """A run that failed on one host and was scored on another shows no failure."""
    tracked, run = _tracked(failure_kind="disk_full", failure_stage="export", failure_message="x")
    tracked.scored(MEASURED, score(MEASURED, Goal()), {})
    assert run.summary["failure_kind"] is None and run.summary["outcome"] == "scored"


def test_a_skipped_trial_has_a_latency_and_no_score() -> None:
    """It says how fast it is and what it could not beat; nothing that an earlier attempt of the run came to stays."""
    tracked, run = _tracked(failure_kind="disk_full", score=0.3, metric_drop=0.1)
    tracked.skipped(Skipped(Candidate({}), {"a": 8}, (LATENCY,), 0.5, 0.7, 1, 2), {"measure": 3.0})
    told = run.summary
    assert (told["outcome"], told["latency_ratio"], told["baseline_p50_ms"]) == ("skipped", 0.5, 2.1)
    assert (told["score_bound"], told["incumbent"], told["seconds_measure"]) == (0.5, 0.7, 3.0)
    assert (told["score"], told["metric_drop"], told["failure_kind"]) == (None, None, None)
    assert run.rows == [{"latency_ratio": 0.5}]
    with pytest.raises(BadInput, match=r"score_bound: got 0\.8; give less than the incumbent"):
        Skipped(Candidate({}), {"a": 8}, (LATENCY,), 0.8, 0.7, 1, 2)


def test_a_rungs_score_is_no_score_of_a_failed_trial() -> None:
    """What training logged on its way does not stand in the summary of a trial that came to nothing."""
    tracked, run = _tracked(score=0.3)
    tracked.failed(Failure(FailureKind.DIVERGED, "train", "nan"), {})
    assert run.summary["score"] is None


def test_artifacts_outlast_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging one asks the server, which the client gives up on within seconds: neither that nor waiting is lost."""
    monkeypatch.setattr(retry, "LOOK_S", 0.01)
    monkeypatch.setattr(retry, "is_away", lambda: True)
    tracked, run = _tracked()
    failing = [AuthenticationError("busy")] * 3 + [CommError("busy")]
    logged = SimpleNamespace(version="v3")

    def wait() -> Any:
        if failing:
            raise failing.pop()
        return logged

    def log_artifact(artifact: Any, aliases: Any = None) -> Any:
        if len(failing) > 2:
            raise failing.pop()
        return SimpleNamespace(wait=wait)

    run.log_artifact = log_artifact  # type: ignore[attr-defined]
    (file := tmp_path / "file").write_text("x")
    assert tracked.publish("name", "kind", [file], {}) == "v3"
    assert not failing
    failing += [AuthenticationError("busy")] * 4
    tracked.offer("name", "kind", {"a": {"file": file}})
    assert not failing


@pytest.mark.parametrize("trouble", ["refused", "client is dead", "stopped", "too long"])
def test_a_server_is_not_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """What fails three times while the server answers, a stop, and ten minutes of silence end it."""
    monkeypatch.setattr(retry, "LOOK_S", 0.01)
    monkeypatch.setattr(retry, "is_away", lambda: trouble not in ("refused", "client is dead"))
    error = ConnectionResetError("Connection lost") if trouble == "client is dead" else AuthenticationError("no")
    stop, asked = StopSignal(), []
    if trouble == "too long":
        monkeypatch.setattr(tracked_run, "AWAY_S", 0.05)

    def ask() -> None:
        asked.append(1)
        if trouble == "stopped" and len(asked) == 3:
            stop.signal_name = "SIGTERM"
        raise error

    tracked = TrackedRun(Run(), stop)  # type: ignore[arg-type]
    with pytest.raises(TrialFailed if trouble == "stopped" else type(error)) as told:
        tracked.outlasting(ask)
    if trouble == "stopped":
        assert "is away, and stopped by SIGTERM" in str(told.value) and len(asked) == 3
    else:
        assert len(asked) > 3 if trouble == "too long" else len(asked) == 3


@pytest.mark.parametrize("trouble", ["hangs", "fails", "has none", "no sweep"])
def test_without_word_of_the_incumbent_a_trial_goes_on(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """A server that hangs or fails, a sweep without a scored run, a run without a sweep: none, and soon."""
    tracked, run = _tracked()
    over = threading.Event()

    def api(**_: object) -> Any:
        if trouble == "hangs":
            over.wait(30)
        if trouble != "has none":
            raise ConnectionError
        return SimpleNamespace(runs=lambda *_, **__: [])

    monkeypatch.setattr(tracked_run, "INCUMBENT_S", 0.1)
    monkeypatch.setattr(tracked_run.wandb, "Api", api)
    if trouble == "no sweep":
        run.sweep_id = None  # type: ignore[assignment]
    assert tracked.incumbent() is None
    over.set()


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(FailureKind.DIVERGED, "diverged"), (FailureKind.INFEASIBLE, "infeasible"), (FailureKind.DISK_FULL, None)],
)
def test_only_a_candidates_failure_is_an_outcome(kind: FailureKind, outcome: str | None) -> None:
    """A host's failure says what happened and leaves the outcome to the next attempt."""
    tracked, run = _tracked()
    tracked.failed(Failure(kind, "train", "why"), {"train": 1.0})
    assert run.summary.get("outcome") == outcome
    assert (run.summary["failure_kind"], run.summary["failure_stage"]) == (kind.value, "train")


def test_bad_input_is_told_without_an_outcome() -> None:
    """A sweep that asks for the impossible is a failure of its own kind."""
    tracked, run = _tracked()
    tracked.refused(BadInput("ratio.x", 2, "give less"), "groups")
    assert run.summary["failure_kind"] == "bad_input" and run.summary["failure_message"].startswith("ratio.x: got 2")


def test_a_run_that_is_handed_back_is_marked_first() -> None:
    """The mark goes out before the run ends, else the server would take it for failed."""
    tracked, run = _tracked()
    tracked.finish(1, again=True)
    assert run.ended == ["preempting", 1]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (tracked_run.CommError("no route"), FailureKind.SERVER),
        (tracked_run.AuthenticationError("no answer taken for a refusal"), FailureKind.SERVER),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.DISK_FULL),
    ],
)
def test_a_run_that_cannot_be_opened_is_the_hosts_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: FailureKind
) -> None:
    """No server, or no room for the run's files."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(tracked_run.wandb, "init", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(TrialFailed) as told:
        tracked_run.start(StopSignal())
    assert told.value.failure.kind is kind


@pytest.mark.parametrize(("word", "quiet"), [("metrics", True), ("bundles", False), (None, False)])
def test_the_client_keeps_back_what_may_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str | None, quiet: bool
) -> None:
    """With `upload: metrics` in the file that the agent wrote neither console, packages, metadata nor git state."""
    given: list[Any] = []
    monkeypatch.setattr(tracked_run.wandb, "init", lambda **options: given.append(options["settings"]) or Run())
    if word:
        (tmp_path / "params.yaml").write_text(f"wandb_version: 1\nupload: {{desc: null, value: {word}}}\n")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "params.yaml"))
    tracked_run.start(StopSignal())
    tracked_run.start(StopSignal(), upload=word)
    for settings in given:
        assert settings.save_code is False
        assert (settings.console == "off", bool(settings.x_disable_meta), bool(settings.disable_git)) == (quiet,) * 3


def test_a_refused_key_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line shows the end of the key alone."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(tracked_run, "is_away", lambda: False)
    refused = tracked_run.AuthenticationError("permission denied")
    monkeypatch.setattr(tracked_run.wandb, "init", lambda **_: (_ for _ in ()).throw(refused))
    with pytest.raises(BadInput, match="WANDB_API_KEY: got '…kkkk'"):
        tracked_run.start(StopSignal())


@pytest.mark.parametrize("command", [["plan", "sweep.yaml"], ["baseline", "sweep.yaml"], ["answer", "me/p/s"]])
def test_commands_ask_for_the_server_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Without a server nothing is trained: one line, exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    text = "{program: prunefleet, command: [trial], method: bayes, parameters: {task: {value: fashion_mnist}}}"
    (tmp_path / "sweep.yaml").write_text(text)
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("prunefleet: WANDB_BASE_URL: got 'http://127.0.0.1:1'") and told.count("\n") == 1


def test_fewer_than_no_mixed_candidates_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything else is looked at."""
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "sweep.yaml", "--mixed", "-1"]) == 2
    assert capsys.readouterr().err == "prunefleet: --mixed: got -1; give a whole number, 0 or more\n"


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file and nothing else."""
    replace_file(tmp_path / "deep" / "file", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prunefleet.agent.host.cache_files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "deep" / "file", b"new")
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"old"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    """A block that fails leaves the old folder; one that ends well replaces it."""
    for content in ("old", "new"):
        with only_one(tmp_path / "lock"), new_folder(tmp_path / "made") as fresh:
            (fresh / content).touch()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "made") as fresh:
        (fresh / "torn").touch()
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "made"]
