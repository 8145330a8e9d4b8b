"""A hub of plain lists, for the suggester to think about."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from prunefleet.infra.controller.contract import Suggestion
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.rows import AgentRow, RunRow, RunState, SweepRow, SweepState
from prunefleet.infra.hub.suggest.suggester import ProcessSuggester

from support.wait import wait_for

NOW = datetime.now(UTC)


class ListHub:
    """Sweeps, runs and agents in lists."""

    def __init__(self) -> None:
        self.sweeps: dict[int, SweepRow] = {}
        self.runs: dict[int, list[RunRow]] = {}
        self.agents: dict[int, list[AgentRow]] = {}
        self.lock = threading.Lock()

    def as_hub(self) -> Hub:
        """Return this in the place of a hub, of which the suggester calls what is here."""
        return cast(Hub, self)

    @property
    def records(self) -> ListHub:
        return self

    @property
    def listing(self) -> ListHub:
        return self

    def add(self, config: dict[str, Any], state: SweepState = SweepState.RUNNING) -> int:
        number = len(self.sweeps) + 1
        row = SweepRow(number, f"s{number}", "me", "p", config, "", state, None, None, NOW, NOW, "me")
        self.sweeps[number], self.runs[number], self.agents[number] = row, [], []
        return number

    def begin(self, sweep: int, suggestion: Suggestion) -> RunRow:
        """A run from a suggestion, as the hub makes one in the transaction that took it."""
        with self.lock:
            number = len(self.runs[sweep]) + 1
            row = run_row(number, suggestion.config, RunState.RUNNING, {})
            self.runs[sweep].append(row)
        return row

    def end(self, sweep: int, row: RunRow, **summary: Any) -> None:
        with self.lock:
            place = [run.id for run in self.runs[sweep]].index(row.id)
            self.runs[sweep][place] = replace(row, state=RunState.FINISHED, summary=summary)

    def idle(self, sweep: int, count: int) -> None:
        self.agents[sweep] = [
            AgentRow(i, f"a{i}", "here", "s", sweep, "RUNNING", NOW, datetime.now(UTC), None) for i in range(count)
        ]

    def sweeps_in(self, state: SweepState) -> list[SweepRow]:
        return [sweep for sweep in self.sweeps.values() if sweep.state is state]

    def sweep_by_id(self, sweep_id: int) -> SweepRow:
        if sweep_id not in self.sweeps:
            raise Missing("sweep: it is not here")
        return self.sweeps[sweep_id]

    def sweep_runs(self, sweep_id: int) -> list[RunRow]:
        with self.lock:
            return list(self.runs[sweep_id])

    def sweep_agents(self, sweep_id: int) -> list[AgentRow]:
        return self.agents[sweep_id]


def run_row(number: int, config: Any, state: RunState, summary: dict[str, Any]) -> RunRow:
    return RunRow(
        id=number,
        name=f"r{number}",
        entity="me",
        project="p",
        sweep="s",
        agent=None,
        state=state,
        display_name=f"r{number}",
        config=config,
        summary=summary,
        host=None,
        created_at=NOW,
        started_at=NOW,
        heartbeat_at=NOW,
        finished_at=None,
        exit_code=None,
        retries=0,
        why=None,
    )


def grid_config(**more: Any) -> dict[str, Any]:
    parameters = {"a": {"values": [1, 2, 3]}, "b": {"parameters": {"c": {"value": 7}}}}
    return {"method": "grid", "metric": {"name": "loss"}, "parameters": parameters, **more}


def taken(suggester: ProcessSuggester, sweep: int, seconds: float = 60) -> Suggestion:
    """What a heartbeat gets once something lies ready."""
    found = wait_for(lambda: suggester.take(sweep), seconds)
    assert isinstance(found, Suggestion)
    return found
