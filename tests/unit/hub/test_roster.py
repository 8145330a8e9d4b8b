"""What people are told of a sweep's agents and of the software on its hosts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prunefleet.infra.hub.runs.roster import roster, skew
from prunefleet.infra.hub.store.rows import Hold, RunRow, RunState

from support.dashboard import START, agent_row, run_row


def run(number: int, host: str, versions: dict[str, str], **config: Any) -> RunRow:
    return run_row(number, host=host, config={"versions": versions, **config})


@pytest.mark.parametrize(
    ("changes", "state", "actions"),
    [
        ({}, "idle", ("pause", "drain", "stop")),
        ({"run": "r"}, "running", ("pause", "drain", "stop")),
        ({"hold": Hold.PAUSE, "run": "r"}, "paused", ("resume", "drain", "stop")),
        ({"hold": Hold.DRAIN}, "draining", ("resume", "stop")),
        ({"hold": Hold.STOP}, "stopping", ("resume", "drain")),
        ({"state": "FINISHED"}, "finished", ()),
        ({"state": "FINISHED", "hold": Hold.STOP}, "stopped", ("resume",)),
        ({"state": "FINISHED", "hold": Hold.STOP, "followed": True}, "finished", ()),
        ({"heartbeat_at": START}, "silent", ("pause", "drain", "stop")),
    ],
)
def test_an_agents_state_says_what_may_be_asked_of_it(
    changes: dict[str, Any], state: str, actions: tuple[str, ...]
) -> None:
    """Held, it may be resumed; left with its place held, only that; left for good, nothing."""
    agent = replace(agent_row("agent-a"), **changes)
    (member,) = roster([agent], [], START + timedelta(seconds=1))
    assert (member.state, member.actions) == (state, actions)


def test_an_agents_figures_come_from_its_runs() -> None:
    """Ended and failed runs are counted, device and software are those that its latest run told."""
    rows = [
        run(1, "h", {"openvino": "1", "numpy": "1"}, device="old"),
        run(2, "h", {"openvino": "2", "numpy": "1"}, device={"kind": "cpu", "cpu": "Example"}),
        run_row(3, state=RunState.CRASHED),
        run_row(4, state=RunState.RUNNING),
        run_row(5, agent="another"),
    ]
    (member,) = roster([agent_row("agent-a")], rows)
    assert (member.ended, member.failed, member.device) == (3, 1, "cpu · Example")
    assert member.versions == {"openvino": "2"}


def test_unlike_software_is_told_by_host() -> None:
    """A host counts with its latest run; a device elsewhere tells of its own openvino, the trial's of prunefleet."""
    rows = [
        run(1, "a", {"openvino": "0.9", "torch": "2"}),
        run(2, "a", {"openvino": "1.0", "torch": "2"}),
        run(3, "b", {"openvino": "1.1", "torch": "2"}),
        run(4, "c", {"openvino": "1.0", "prunefleet": "0.4"}, device={"host": "board"}),
        run(5, "a", {"prunefleet": "0.3"}),
        run(6, "a", {}),
    ]
    assert skew(rows) == "prunefleet 0.3 on a, 0.4 on c; openvino 1.0 on a and board, 1.1 on b"
    assert skew(rows[:2]) == ""
