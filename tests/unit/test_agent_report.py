"""What a session tells the server, in the vocabulary of a run; and files that are written whole or not at all."""

import errno
from pathlib import Path
from typing import Any

import pytest

from agent import report
from agent.__main__ import main
from agent.cache import new_folder, only_one, replace_file
from agent.report import Session
from agent.stop import Stop
from objective.errors import BadInput
from objective.goal import Goal
from objective.score import score
from objective.trial import (
    Accuracy,
    Candidate,
    Device,
    Failure,
    FailureKind,
    Latency,
    Measurement,
    TrialFailed,
)

DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {})
LATENCY = Latency(DEVICE, "f32", 0.5, 0.4, 0.6, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 0.0, 40)
MEASURED = Measurement(Candidate({"a": 0.5}), {"a": 8}, Accuracy("top1", 0.92, 0.9), 0.01, (LATENCY,), 1, 2, 3)


class Run:
    """Stands for wandb's run."""

    id, entity, project = "r1", "me", "p"

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


def _session(**summary: Any) -> tuple[Session, Run]:
    run = Run(**summary)
    return Session(run), run  # type: ignore[arg-type]


def test_a_score_is_told_in_summary_and_history() -> None:
    """The summary has what was measured, without what was not; the history has a row for charts and early stops."""
    session, run = _session()
    session.scored(MEASURED, score(MEASURED, Goal(max_drop=0.02)), {"train": 1.23456})
    assert run.summary["outcome"] == "scored" and run.summary["latency_ratio_hi"] == 0.6
    assert run.summary["seconds_train"] == 1.235 and run.summary["score_terms"]["drop"] == 0.01
    assert not {"test_top1", "energy_mj", "throughput_fps", "failure_kind"} & set(run.summary)
    assert set(run.rows[0]) == {"score", "latency_ratio", "val_top1"}


def test_a_second_attempt_clears_the_first_ones_failure() -> None:
    """A run that failed on one host and was scored on another shows no failure."""
    session, run = _session(failure_kind="disk_full", failure_stage="export", failure_message="x")
    session.scored(MEASURED, score(MEASURED, Goal()), {})
    assert run.summary["failure_kind"] is None and run.summary["outcome"] == "scored"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(FailureKind.DIVERGED, "diverged"), (FailureKind.INFEASIBLE, "infeasible"), (FailureKind.DISK_FULL, None)],
)
def test_only_a_candidates_failure_is_an_outcome(kind: FailureKind, outcome: str | None) -> None:
    """A host's failure says what happened and leaves the outcome to the next attempt."""
    session, run = _session()
    session.failed(Failure(kind, "train", "why"), {"train": 1.0})
    assert run.summary.get("outcome") == outcome
    assert (run.summary["failure_kind"], run.summary["failure_stage"]) == (kind.value, "train")


def test_bad_input_is_told_without_an_outcome() -> None:
    """A sweep that asks for the impossible is a failure of its own kind."""
    session, run = _session()
    session.refused(BadInput("ratio.x", 2, "give less"), "groups")
    assert run.summary["failure_kind"] == "bad_input" and run.summary["failure_message"].startswith("ratio.x: got 2")


def test_a_run_that_is_handed_back_is_marked_first() -> None:
    """The mark goes out before the run ends, else the server would take it for failed."""
    session, run = _session()
    session.finish(1, again=True)
    assert run.ended == ["preempting", 1]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (report.CommError("no route"), FailureKind.SERVER),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.DISK_FULL),
    ],
)
def test_a_run_that_cannot_be_opened_is_the_hosts_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: FailureKind
) -> None:
    """No server, or no room for the run's files."""
    monkeypatch.setattr(report.wandb, "init", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(TrialFailed) as told:
        report.start(Stop())
    assert told.value.failure.kind is kind


def test_a_refused_key_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line shows the end of the key alone."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    refused = report.AuthenticationError("permission denied")
    monkeypatch.setattr(report.wandb, "init", lambda **_: (_ for _ in ()).throw(refused))
    with pytest.raises(BadInput, match="WANDB_API_KEY: got '…kkkk'"):
        report.start(Stop())


@pytest.mark.parametrize("command", [["plan", "sweep.yaml"], ["baseline", "sweep.yaml"], ["answer", "me/p/s"]])
def test_commands_ask_for_the_server_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Without a server nothing is trained: one line, exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    text = "{program: prunefleet, method: bayes, parameters: {task: {value: fashion_mnist}}}"
    (tmp_path / "sweep.yaml").write_text(text)
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("prunefleet: WANDB_BASE_URL: got 'http://127.0.0.1:1'") and told.count("\n") == 1


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file and nothing else."""
    replace_file(tmp_path / "deep" / "file", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.cache.os.fsync", full)
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
