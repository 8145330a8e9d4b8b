"""W&B's `Run`: its fields from a `RunRow`, and the operations that change one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.store.errors import Denied, Invalid, Missing
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, RunState, UserRow
from prunefleet.infra.wire import history
from prunefleet.infra.wire.graphql.execute import Info, Resolvers
from prunefleet.infra.wire.graphql.ids import encode
from prunefleet.infra.wire.graphql.lookups import find_project, find_run, owned

log = logging.getLogger(__name__)


def project_of(run: RunRow, info: Info) -> ProjectRow:
    """The run's project."""
    found = find_project(info, run.entity, run.project)
    if found is None:
        raise Missing(f"project: {run.entity}/{run.project} is not here any more")
    return found


def load_object(field: str, text: str | None) -> dict[str, Any] | None:
    """A JSON object that came as text; None stays None. Raises `Invalid` naming the field."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{field}: not JSON ({error})") from error
    if value is not None and not isinstance(value, dict):
        raise Invalid(f"{field}: got {type(value).__name__}; send a JSON object")
    return value


def _upsert(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    hub, change = info.context.hub, _change(input)
    _refuse_fork(change.config)
    run_id = owned(info, "Run", input["id"]) if input.get("id") else None
    if run_id is not None and not change.name:  # `wandb.Api().run(…).update()`
        return {"bucket": hub.revise_run(run_id, change), "inserted": False}
    run, inserted = hub.begin_run(info.context.user, change, run_id)
    return {"bucket": run, "inserted": inserted}


def _refuse_fork(config: Mapping[str, Any] | None) -> None:
    """A fork is told by the configuration alone: without its parent's history the run would be half a run."""
    internal = (config or {}).get("_wandb")
    value = internal.get("value") if isinstance(internal, Mapping) else None
    if isinstance(value, Mapping) and value.get("branch_point"):
        raise Denied("fork_from: forking a run is not served by this server; start a new run, or resume the old one")


def _change(given: dict[str, Any]) -> RunChange:
    return RunChange(
        entity=given.get("entityName"),
        project=given.get("modelName"),
        name=given.get("name"),
        sweep=given.get("sweep"),
        state=given.get("state"),
        display_name=given.get("displayName") or None,
        notes=given.get("notes"),
        tags=given.get("tags"),
        group=given.get("groupName"),
        job_type=given.get("jobType"),
        host=given.get("host"),
        program=given.get("jobProgram"),
        commit=given.get("commit"),
        repo=given.get("jobRepo"),
        config=load_object("config", given.get("config")),
        summary=load_object("summaryMetrics", given.get("summaryMetrics")),
    )


def _delete(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    with_artifacts = input.get("deleteArtifacts") is True
    info.context.hub.run_edits.delete(owned(info, "Run", input["id"]), with_artifacts=with_artifacts)
    return {"success": True}


def _stop(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    info.context.hub.stop_run(owned(info, "Run", input["id"]))
    return {"success": True}


def _set_state(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    info.context.hub.run_edits.set_state(owned(info, "Run", input["id"]), input["state"])
    return {"success": True}


def _refuse(what: str) -> Any:
    def resolve(_root: object, _info: Info, input: dict[str, Any]) -> None:
        raise Denied(f"{what} is not served by this server")

    return resolve


def _alert(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    run = find_run(info, input["entityName"], input["projectName"], input["runName"])
    title, text, severity = input["title"], input["text"], input.get("severity") or "INFO"
    info.context.hub.run_edits.alert(run.id, title, text, severity)
    log.warning("alert of run %s/%s/%s, %s: %r", run.entity, run.project, run.name, severity, title[:200])
    return {"success": True}


def _wandb_config(run: RunRow, _info: Info, keys: list[str] | None = None) -> str:
    internal = run.raw_config.get("_wandb") or {}
    values = internal.get("value", {}) if isinstance(internal, dict) else {}
    return json.dumps({key: values[key] for key in (keys or values) if key in values})


def _told(run: RunRow, _info: Info) -> str:
    """The summary, with the controller's reason for the run where it had one: it belongs to what is read of a run."""
    return json.dumps(run.summary if run.why is None else {**run.summary, "why": run.why})


RESOLVERS: Resolvers = {
    "UpsertBucketPayload": {"serverSettings": lambda _payload, _info: {"serverMessages": []}},
    "Mutation": {
        "upsertBucket": _upsert,
        "deleteRun": _delete,
        "stopRun": _stop,
        "updateRunState": _set_state,
        "rewindRun": _refuse("rewinding or forking a run"),
        "notifyScriptableRunAlert": _alert,
    },
    "Run": {
        "id": lambda run, _info: encode("Run", run.id),
        "internalId": lambda run, _info: run.id,
        "projectId": lambda run, info: project_of(run, info).id,
        "project": project_of,
        "description": lambda run, _info: run.notes,
        "tags": lambda run, _info: list(run.tags),
        "exitcode": lambda run, _info: run.exit_code,
        "shouldStop": lambda run, _info: run.stop_requested_at is not None,
        "failed": lambda run, _info: run.state in (RunState.FAILED, RunState.CRASHED),
        "stopped": lambda run, _info: run.state is RunState.KILLED,
        "running": lambda run, _info: run.state is RunState.RUNNING,
        "readOnly": lambda _run, _info: False,
        "user": lambda run, _info: UserRow(0, run.user, admin=False),
        "sweepName": lambda run, _info: run.sweep,
        "agentName": lambda run, _info: run.agent,
        "updatedAt": lambda run, _info: run.heartbeat_at or run.created_at,
        "config": lambda run, _info: json.dumps(run.raw_config),
        "wandbConfig": _wandb_config,
        "summaryMetrics": _told,
        "systemMetrics": history.system_metrics,
        "historyKeys": history.keys,
        "historyLineCount": lambda run, _info: run.history_lines,
        "eventsLineCount": history.counter(Stream.EVENTS),
        "logLineCount": history.counter(Stream.CONSOLE),
        "historyTail": history.tail_of(Stream.HISTORY),
        "eventsTail": history.tail_of(Stream.EVENTS),
        "history": history.page,
        "events": history.events,
        "sampledHistory": history.sampled,
        "parquetHistory": history.unexported,
        "logLines": history.log_lines,
    },
}
