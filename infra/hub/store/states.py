"""Every transition of runs and sweeps, as data: what happened → what the state becomes.

A pair that is not listed changes nothing: late, repeated or senseless news never moves a run. The page `docs/hub.md`
shows these tables (`python -m prunefleet.infra.hub.store.states` prints them).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from prunefleet.infra.hub.store.rows import RunState, SweepState

MAX_RETRIES = 2


class RunEvent(StrEnum):
    """What may happen to a run."""

    ISSUED = "issued"
    STARTED = "started"
    RESET = "reset"
    STREAMED = "streamed"
    PREEMPTING = "preempting"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    REQUEUED = "requeued"
    GAVE_UP = "gave up"


EVENT_MEANING: Mapping[RunEvent, str] = MappingProxyType(
    {
        RunEvent.ISSUED: "an agent is told to run it",
        RunEvent.STARTED: "`wandb.init` in a process",
        RunEvent.RESET: "`update_state('pending')`: a run without a sweep waits for its user to start it again",
        RunEvent.STREAMED: "rows, console lines or a sign of life arrive",
        RunEvent.PREEMPTING: "`mark_preempting()`",
        RunEvent.COMPLETED: "ended with exit code 0",
        RunEvent.FAILED: "ended with another exit code, or never started",
        RunEvent.STOPPED: "ended after it was told to stop, or by Ctrl-C (exit code 255)",
        RunEvent.LOST: "gone without a word: absent from its agent's list, or silent for too long",
        RunEvent.REQUEUED: "ended by its host's failure: queued again under the same id",
        RunEvent.GAVE_UP: "ended by its host's failure once more after the last retry",
    }
)

_LIVE = frozenset({RunState.PENDING, RunState.RUNNING, RunState.PREEMPTING})
_ENDED = frozenset({RunState.FINISHED, RunState.FAILED, RunState.KILLED, RunState.CRASHED})
LIVE_STATES: frozenset[RunState] = _LIVE
"""Some process may be at work on it."""
QUEUED_STATES: frozenset[RunState] = frozenset({RunState.PREEMPTED})
"""Waits for the next idle agent."""
ENDED_STATES: frozenset[RunState] = _ENDED

_ENDINGS = {
    RunEvent.COMPLETED: RunState.FINISHED,
    RunEvent.FAILED: RunState.FAILED,
    RunEvent.STOPPED: RunState.KILLED,
    RunEvent.LOST: RunState.CRASHED,
    RunEvent.REQUEUED: RunState.PREEMPTED,
    RunEvent.GAVE_UP: RunState.FAILED,
}

RUN_TABLE: Mapping[RunState, Mapping[RunEvent, RunState]] = MappingProxyType(
    {
        RunState.PENDING: {
            RunEvent.STARTED: RunState.RUNNING,
            RunEvent.STREAMED: RunState.RUNNING,
            # A process that never started cannot complete: such news is a late repetition of an earlier attempt's.
            RunEvent.FAILED: RunState.FAILED,
            RunEvent.STOPPED: RunState.KILLED,
            RunEvent.REQUEUED: RunState.PREEMPTED,
            RunEvent.GAVE_UP: RunState.FAILED,
        },
        RunState.RUNNING: {
            RunEvent.RESET: RunState.PENDING,
            RunEvent.PREEMPTING: RunState.PREEMPTING,
            **_ENDINGS,
        },
        RunState.PREEMPTING: {**_ENDINGS, RunEvent.LOST: RunState.PREEMPTED},
        RunState.PREEMPTED: {
            RunEvent.ISSUED: RunState.PENDING,
            RunEvent.STARTED: RunState.RUNNING,
            RunEvent.RESET: RunState.PENDING,
            RunEvent.STREAMED: RunState.RUNNING,
            RunEvent.COMPLETED: RunState.FINISHED,  # it was only thought lost
            RunEvent.STOPPED: RunState.KILLED,
        },
        RunState.CRASHED: {
            RunEvent.STARTED: RunState.RUNNING,
            RunEvent.RESET: RunState.PENDING,
            RunEvent.STREAMED: RunState.RUNNING,
            RunEvent.COMPLETED: RunState.FINISHED,
            RunEvent.FAILED: RunState.FAILED,
        },
        # What has ended stays as it is, unless its user starts it again with `wandb.init(id=…)` or is about to.
        RunState.FINISHED: {RunEvent.STARTED: RunState.RUNNING},
        RunState.FAILED: {RunEvent.STARTED: RunState.RUNNING, RunEvent.RESET: RunState.PENDING},
        RunState.KILLED: {RunEvent.STARTED: RunState.RUNNING},
    }
)

SWEEP_TABLE: Mapping[SweepState, frozenset[SweepState]] = MappingProxyType(
    {
        SweepState.PENDING: frozenset({SweepState.RUNNING, SweepState.CANCELED, SweepState.FINISHED}),
        SweepState.RUNNING: frozenset({SweepState.PAUSED, SweepState.CANCELED, SweepState.FINISHED}),
        SweepState.PAUSED: frozenset({SweepState.RUNNING, SweepState.CANCELED, SweepState.FINISHED}),
        SweepState.FINISHED: frozenset({SweepState.RUNNING}),
        SweepState.CANCELED: frozenset(),
    }
)


def after(state: RunState, event: RunEvent) -> RunState:
    """The run's state once `event` has happened."""
    return RUN_TABLE[state].get(event, state)


def may_become(state: SweepState, wanted: SweepState) -> bool:
    """Whether a sweep may go from `state` to `wanted`; staying as it is always may."""
    return wanted == state or wanted in SWEEP_TABLE[state]


def ending(
    state: RunState, exit_code: int | None, *, stop_requested: bool, host_is_blamed: bool, retries: int
) -> RunEvent:
    """How the end of a run's process is to be read.

    `exit_code` is None where the process vanished. `host_is_blamed`: its sweep re-queues what a host did to a run
    (sweeps of this project do, others keep to W&B's rules, where only a preempted run is queued again).
    """
    if exit_code == 0:
        return RunEvent.COMPLETED
    if stop_requested or (exit_code == 255 and state != RunState.PREEMPTING):
        return RunEvent.STOPPED
    if exit_code is not None and state != RunState.PREEMPTING:
        return RunEvent.FAILED
    if host_is_blamed:
        return RunEvent.GAVE_UP if retries >= MAX_RETRIES else RunEvent.REQUEUED
    if state == RunState.PREEMPTING:
        return RunEvent.REQUEUED
    return RunEvent.FAILED if state == RunState.PENDING else RunEvent.LOST


def run_table_markdown() -> str:
    """The run's transitions as a Markdown table, one line per event."""
    states = list(RunState)
    head = "| what happens | " + " | ".join(states) + " |\n" + "|---" * (len(states) + 1) + "|"
    lines = [
        f"| **{event}**: {EVENT_MEANING[event]} | "
        + " | ".join(RUN_TABLE[state].get(event, "") or "·" for state in states)
        + " |"
        for event in RunEvent
    ]
    return "\n".join([head, *lines])


def sweep_table_markdown() -> str:
    """The sweep's transitions as a Markdown table, one line per state."""
    lines = [f"| {state} | {', '.join(sorted(SWEEP_TABLE[state])) or 'nothing'} |" for state in SweepState]
    return "\n".join(["| a sweep that is | may become |\n|---|---|", *lines])


if __name__ == "__main__":
    print(run_table_markdown(), sweep_table_markdown(), sep="\n\n")
