"""W&B's `Sweep` and `Agent`: fields from their rows, and the operations that create, change and drive them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from infra.hub.errors import Missing
from infra.hub.metrics import metric_value
from infra.hub.rows import AgentRow, ProjectRow, RunRow, SweepRow
from infra.hub.sweeps import SweepChange, warnings
from infra.wire import filters, paging
from infra.wire.graphql import Info, Resolvers
from infra.wire.ids import decode, encode
from infra.wire.runs import load_object
from infra.wire.users import find_project


def _upsert(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    hub, change = info.context.hub, _change(input)
    if input.get("id"):
        sweep = hub.revise_sweep(decode("Sweep", input["id"]), change)
    else:
        sweep = hub.create_sweep(info.context.user, change)
    return {"sweep": sweep, "configValidationWarnings": warnings(sweep.config)}


def _change(given: dict[str, Any]) -> SweepChange:
    return SweepChange(
        entity=given.get("entityName"),
        project=given.get("projectName"),
        config_yaml=given.get("config"),
        state=given.get("state"),
        display_name=given.get("displayName"),
        description=given.get("description"),
        controller=_said(given.get("controller")),
        scheduler=_said(given.get("scheduler")),
        prior_runs=_said(given.get("priorRunsFilters")),
    )


def _said(text: str | None) -> str | None:
    """The client sends the JSON text `null` for nothing."""
    return None if text in (None, "", "null") else text


def _create_agent(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    known = info.context
    agent = known.hub.register_agent(
        known.user, input.get("entityName"), input.get("projectName"), input["sweep"], input["host"]
    )
    return {"agent": agent}


def _heartbeat(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    listed = load_object("runState", input.get("runState")) or {}
    alive = {name for name, running in listed.items() if running}
    hub, agent_id = info.context.hub, decode("Agent", input["id"])
    try:
        command = hub.heartbeat(agent_id, alive)
        return {"agent": hub.agent_by_id(agent_id), "commands": json.dumps([command] if command else [])}
    except Missing:
        if not alive:
            raise
    # Its sweep was deleted. Older clients kill their run at a 404, so that waits until there is none.
    return {"agent": _forgotten(agent_id), "commands": "[]"}


def _forgotten(agent_id: int) -> AgentRow:
    now = datetime.now(UTC)
    return AgentRow(agent_id, "", "", "", "FINISHED", now, now, None)


def _runs(
    sweep: SweepRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    filters: str | None = None,
) -> dict[str, Any]:
    found = _select(info.context.hub.sweep_runs(sweep.id), filters, order)
    return paging.everything(found) if first is None else paging.connection(found, first, after)


def _select(found: list[RunRow], document: str | None, order: str | None) -> list[RunRow]:
    matches = filters.matcher(filters.parse(document))
    return filters.order([run for run in found if matches(run)], order)


def _best_loss(sweep: SweepRow, info: Info) -> float | None:
    metric = sweep.config.get("metric")
    if not isinstance(metric, dict) or "name" not in metric:
        return None
    name, maximise = str(metric["name"]), metric.get("goal") == "maximize"
    found = [metric_value(run.summary, name, maximise) for run in info.context.hub.sweep_runs(sweep.id)]
    numbers = [value for value in found if value is not None and math.isfinite(value)]
    return (max if maximise else min)(numbers, default=None)


def _agent(sweep: SweepRow, info: Info, agentName: str) -> AgentRow | None:  # noqa: N803
    agents = info.context.hub.sweep_agents(sweep.id)
    return next((one for one in agents if agentName in (one.name, encode("Agent", one.id))), None)


def _agent_runs(
    agent: AgentRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    **_unused: object,
) -> dict[str, Any]:
    return paging.connection(filters.order(info.context.hub.agent_runs(agent.id), order), first, after)


def _project(sweep: SweepRow, info: Info) -> ProjectRow | None:
    return find_project(info, sweep.entity, sweep.project)


RESOLVERS: Resolvers = {
    "Mutation": {"upsertSweep": _upsert, "createAgent": _create_agent, "agentHeartbeat": _heartbeat},
    "Sweep": {
        "id": lambda sweep, _info: encode("Sweep", sweep.id),
        "method": lambda sweep, _info: sweep.config.get("method"),
        "state": lambda sweep, _info: sweep.state.value,
        "config": lambda sweep, _info: sweep.config_yaml,
        "bestLoss": _best_loss,
        "earlyStopJobRunning": lambda _sweep, _info: False,
        "project": _project,
        "runs": _runs,
        "runCount": lambda sweep, info: len(info.context.hub.sweep_runs(sweep.id)),
        "runCountExpected": lambda sweep, _info: sweep.config.get("run_cap"),
        "agent": _agent,
        "agents": lambda sweep, info: paging.everything(info.context.hub.sweep_agents(sweep.id)),
    },
    "Agent": {
        "id": lambda agent, _info: encode("Agent", agent.id),
        "totalRuns": lambda agent, info: len(info.context.hub.agent_runs(agent.id)),
        "runs": _agent_runs,
    },
}
