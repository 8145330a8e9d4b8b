"""Moves of a run on a hub: begun, logged, ended, claimed by an agent."""

import json
from collections.abc import Sequence
from typing import Any

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import RunRow

from support.hub import first_user


def start(hub: Hub, name: str, **more: Any) -> RunRow:
    """The run begins on a host."""
    return hub.begin_run(first_user(hub), RunChange(project="demo", name=name, host="h", **more))[0]


def finish(hub: Hub, name: str, exit_code: int = 0) -> RunRow:
    """It ends with that exit code."""
    return hub.stream("local", "demo", name, StreamPost(complete=True, exit_code=exit_code))


def log(hub: Hub, name: str, values: Sequence[object], offset: int = 0) -> RunRow:
    """It logs these losses from a step on."""
    lines = [json.dumps({"loss": value, "_step": offset + step}) for step, value in enumerate(values)]
    return hub.stream("local", "demo", name, StreamPost({Stream.HISTORY: (offset, lines)}))


def found(hub: Hub, name: str) -> RunRow:
    """The run as it is."""
    run = hub.records.run("local", "demo", name)
    assert run is not None
    return run


def claimed(hub: Hub, agent: int, listed: Sequence[str] = ()) -> str:
    """The run that an agent is given next."""
    command = hub.heartbeat(agent, set(listed))
    assert command is not None
    assert command["type"] == "run"
    return str(command["run_id"])
