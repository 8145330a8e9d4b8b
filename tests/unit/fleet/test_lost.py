"""What a host's agents left behind when they were killed, and how their hub is told."""

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.fleet import hub_calls
from prunefleet.infra.fleet.supervision import lost

HUB = {"WANDB_BASE_URL": "http://hub:1/", "WANDB_API_KEY": "k" * 40}


def _told(monkeypatch: pytest.MonkeyPatch, answers: list[Any]) -> list[dict[str, Any]]:
    """What the hub is told where it answers so, one after the other; an exception is raised."""
    bodies: list[dict[str, Any]] = []

    def post(url: str, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        assert (url, path, key) == ("http://hub:1", "/e/p/sweeps/s/agents.json", "k" * 40)
        bodies.append(body)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(lost, "AGAIN_S", 0.001)
    monkeypatch.setattr(hub_calls, "post", post)
    thread = lost.tell(HUB, "e/p/s", ["a", "b"])
    assert isinstance(thread, threading.Thread)
    thread.join(10)
    assert not answers and not thread.is_alive()
    return bodies


def test_the_last_run_of_each_agent_is_left_behind(tmp_path: Path) -> None:
    """By when the client began it, not by its name; one that a process is still at is not."""
    for agent, runs in {
        "agent-1": ("20260101_100000-zz", "20260102_090000-aa"),
        "agent-2": ("20260101_000000-bb",),
    }.items():
        for run in runs:
            (tmp_path / agent / "wandb" / f"run-{run}").mkdir(parents=True)
        (tmp_path / agent / "wandb" / "latest-run").symlink_to(f"run-{runs[0]}")
    (tmp_path / "agent-3" / "wandb").mkdir(parents=True)
    assert sorted(lost.left_behind(tmp_path)) == ["aa", "bb"]
    with subprocess.Popen(["sleep", "60"], env={"WANDB_RUN_ID": "bb", "PATH": "/bin:/usr/bin"}) as process:
        try:
            assert lost.left_behind(tmp_path) == ["aa"]
        finally:
            process.kill()
    assert lost.left_behind(tmp_path / "nowhere") == []


def test_a_hub_is_told_until_it_has_heard_and_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away again; of runs that it heard a moment ago again; each time with this host's name."""
    bodies = _told(monkeypatch, [hub_calls.Away("x"), {"lost": ["a"], "heard": ["b"]}, {"lost": ["b"], "heard": []}])
    assert [body["runs"] for body in bodies] == [["a", "b"], ["a", "b"], ["b"]]
    assert {body["action"] for body in bodies} == {"lost"} and len({body["agent"] for body in bodies}) == 1


def test_a_server_that_is_no_hub_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses once; without an address, a key or a run nothing is said at all."""
    assert len(_told(monkeypatch, [hub_calls.Refused(404, "no such page")])) == 1
    assert lost.tell({"WANDB_API_KEY": "k"}, "e/p/s", ["a"]) is None and lost.tell(HUB, "e/p/s", []) is None
