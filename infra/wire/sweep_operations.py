"""W&B's `Sweep` and `Agent`: fields from their rows, and the operations that create, change and drive them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from prunefleet.infra.hub.runs.metric_values import metric_value
from prunefleet.infra.hub.runs.sweep_config import controller_run, is_full, is_scheduled, warnings
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.rows import AgentRow, ProjectRow, RunRow, SweepRow, SweepState
from prunefleet.infra.wire.graphql import filters, paging
from prunefleet.infra.wire.graphql.arguments import Given, taking
from prunefleet.infra.wire.graphql.execute import Info, Resolvers
from prunefleet.infra.wire.graphql.ids import encode
from prunefleet.infra.wire.graphql.lookups import find_project, number_of_gone, owned
from prunefleet.infra.wire.run_operations import load_object
from prunefleet.infra.wire.user_operations import FEATURES, select

FEATURES.add("SWEEPS_LOCAL_SCHEDULER")


def _upsert(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    hub, change = info.context.hub, _change(info, input)
    if input.get("id"):
        sweep = hub.revise_sweep(owned(info, "Sweep", input["id"]), change)
    else:
        sweep = hub.create_sweep(info.context.user, change)
    return {"sweep": sweep, "configValidationWarnings": warnings(sweep.config)}


def _change(info: Info, given: dict[str, Any]) -> SweepChange:
    if _said(given.get("scheduler")) or _said(given.get("launchScheduler")):
        raise Invalid(
            "scheduler: launch queues are not served here; write scheduler: {engine: …} into the sweep's file"
        )
    return SweepChange(
        entity=given.get("entityName"),
        project=given.get("projectName"),
        config_yaml=given.get("config"),
        state=given.get("state"),
        display_name=given.get("displayName"),
        description=given.get("description"),
        controller=load_object("controller", _said(given.get("controller"))),
        prior_runs=_prior_runs(info, given),
    )


def _prior_runs(info: Info, given: dict[str, Any]) -> list[int]:
    """The runs that `wandb sweep --prior_run` names. Raises `Invalid` for a name that is no run of the project."""
    text = _said(given.get("priorRunsFilters"))
    if text is None:
        return []
    project = find_project(info, given.get("entityName"), given.get("projectName"))
    found = [] if project is None else select(info.context, project, text)
    named = [each.get("name") for each in filters.parse(text).get("$or", []) if isinstance(each, dict)]
    missing = [name for name in named if name not in {run.name for run in found}]
    if missing or not found:
        raise Invalid(f"prior_run: got {missing or text[:80]}, no such run in the sweep's project; look at its run ids")
    return [run.id for run in found]


def _said(text: str | None) -> str | None:
    """The client sends the JSON text `null` for nothing."""
    return None if text in (None, "", "null") else text


def _enqueue(info: Info, given: Given) -> dict[str, Any]:
    config = load_object("config", given.text("config"))
    if config is None:
        raise Invalid("config: got null; send a JSON object")
    run = info.context.hub.enqueue(given.id("Sweep", "id"), config, given.maybe("displayName"))
    return {"id": run.name, "runQueueItemId": encode("Run", run.id)}


def _create_agent(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    known = info.context
    agent = known.hub.register_agent(
        known.user, input.get("entityName"), input.get("projectName"), input["sweep"], input["host"]
    )
    return {"agent": agent}


def _heartbeat(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    listed = load_object("runState", input.get("runState")) or {}
    alive = {name for name, running in listed.items() if running}
    hub, number = info.context.hub, input["id"]
    try:
        agent_id = owned(info, "Agent", number)
        command = hub.heartbeat(agent_id, alive)
        return {"agent": hub.records.agent_by_id(agent_id), "commands": json.dumps([command] if command else [])}
    except Missing:
        if not alive:
            raise
    # Its sweep was deleted. Older clients kill their run at a 404, so that waits until there is none.
    return {"agent": _forgotten(number_of_gone("Agent", number)), "commands": "[]"}


def _forgotten(agent_id: int) -> AgentRow:
    now = datetime.now(UTC)
    return AgentRow(agent_id, "", "", "", 0, "FINISHED", now, now, None)


def _state(sweep: SweepRow, info: Info) -> str:
    """The sweep's state; to its scheduler, which takes a refused run as fatal, a full sweep is finished."""
    name = info.operation.name
    if name is not None and name.value == "SweepConfig" and is_scheduled(sweep.config):
        full = is_full(sweep.config, len(info.context.hub.listing.sweep_runs(sweep.id)))
        return SweepState.FINISHED.value if full else sweep.state.value
    return sweep.state.value


def _runs(
    sweep: SweepRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    filters: str | None = None,
) -> dict[str, Any]:
    found = _select(info.context.hub.listing.sweep_runs(sweep.id), filters, order)
    return paging.everything(found) if first is None else paging.connection(found, first, after)


def _select(found: list[RunRow], document: str | None, order: str | None) -> list[RunRow]:
    matches = filters.matcher(filters.parse(document))
    return filters.order([run for run in found if matches(run)], order)


def _best_loss(sweep: SweepRow, info: Info) -> float | None:
    metric = sweep.config.get("metric")
    if not isinstance(metric, dict) or "name" not in metric:
        return None
    name, maximise = str(metric["name"]), metric.get("goal") == "maximize"
    best = max if maximise else min

    def among(runs: Sequence[RunRow]) -> float | None:
        found = [metric_value(run.summary, name, maximise) for run in runs]
        return best((value for value in found if value is not None and math.isfinite(value)), default=None)

    return info.context.hub.listing.derived(sweep.id, ("best", name, maximise), among)


def _agent(sweep: SweepRow, info: Info, agentName: str) -> AgentRow | None:  # noqa: N803
    agents = info.context.hub.records.sweep_agents(sweep.id)
    return next((one for one in agents if agentName in (one.name, encode("Agent", one.id))), None)


def _agent_runs(
    agent: AgentRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    **_unused: object,
) -> dict[str, Any]:
    return paging.connection(filters.order(info.context.hub.records.agent_runs(agent.id), order), first, after)


def _project(sweep: SweepRow, info: Info) -> ProjectRow | None:
    return find_project(info, sweep.entity, sweep.project)


RESOLVERS: Resolvers = {
    "Mutation": {
        "upsertSweep": _upsert,
        "enqueueSweepRun": taking(_enqueue),
        "createAgent": _create_agent,
        "agentHeartbeat": _heartbeat,
    },
    "Sweep": {
        "id": lambda sweep, _info: encode("Sweep", sweep.id),
        "method": lambda sweep, _info: sweep.config.get("method"),
        "state": _state,
        "config": lambda sweep, _info: sweep.config_yaml,
        "bestLoss": _best_loss,
        "earlyStopJobRunning": lambda _sweep, _info: False,
        "controllerRunName": lambda sweep, _info: controller_run(sweep.name),
        "project": _project,
        "priorRuns": lambda sweep, info: paging.everything(info.context.hub.records.prior_runs(sweep.id)),
        "runs": _runs,
        "runCount": lambda sweep, info: info.context.hub.listing.sweep_version(sweep.id)[0],
        "runCountExpected": lambda sweep, _info: sweep.config.get("run_cap"),
        "agent": _agent,
        "agents": lambda sweep, info: paging.everything(info.context.hub.records.sweep_agents(sweep.id)),
    },
    "Agent": {
        "id": lambda agent, _info: encode("Agent", agent.id),
        "totalRuns": lambda agent, info: len(info.context.hub.records.agent_runs(agent.id)),
        "runs": _agent_runs,
    },
}
