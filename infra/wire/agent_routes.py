"""What the wandb client has no operation for: a sweep's agents in detail, and what people ask of them.

`GET …/sweeps/NAME/agents.json` lists them, `POST` with `{"action", "agent"}` asks one of them, or all of a host. With
`{"action": "lost", "agent": HOST, "runs": [NAME, …]}` a host that began anew says which runs it left behind. All take
the API key, as everything on the wire does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.holds import ACTIONS, MEANING
from prunefleet.infra.hub.runs.roster import Member, roster
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.rows import SweepRow
from prunefleet.infra.hub.users.access import may
from prunefleet.infra.wire.http import Json, authenticate, endpoint, parse_json

LOST = "lost"


def routes(hub: Hub) -> list[BaseRoute]:
    """The one address of a sweep's agents."""

    def sweep_of(request: Request) -> SweepRow:
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "name"))
        user = authenticate(request, hub)
        sweep = hub.records.sweep(entity, project, name) if may(user, entity) else None
        if sweep is None:
            raise Missing(f"sweep: got '{entity}/{project}/{name}', which is not here; look at its address")
        return sweep

    def listed(request: Request, _body: bytes) -> Response:
        return Json(_told(hub, sweep_of(request)))

    def asked(request: Request, body: bytes) -> Response:
        sweep, given = sweep_of(request), parse_json(body)
        if given.get("action") == LOST:
            lost, heard = hub.left_behind(sweep.id, _text(given, "agent"), _names(given.get("runs")))
            return Json({"lost": [run.name for run in lost], "heard": [run.name for run in heard]})
        concerned = hub.hold_agents(sweep.id, _text(given, "action"), _text(given, "agent"))
        lines = [f"{agent.name} on {agent.host}: {MEANING[given['action']]}" for agent in concerned]
        return Json({**_told(hub, sweep), "concerned": [agent.name for agent in concerned], "lines": lines})

    address = "/{entity}/{project}/sweeps/{name}/agents.json"
    return [Route(address, endpoint(listed), methods=["GET"]), Route(address, endpoint(asked), methods=["POST"])]


def _told(hub: Hub, sweep: SweepRow) -> dict[str, Any]:
    now = datetime.fromtimestamp(hub.clock(), UTC)
    agents, runs = hub.records.sweep_agents(sweep.id), hub.listing.sweep_runs(sweep.id)
    members = roster(agents, runs, now - timedelta(seconds=hub.timeouts.agent_silence))
    return {
        "sweep": f"{sweep.entity}/{sweep.project}/{sweep.name}",
        "state": sweep.state.value,
        "held_hosts": hub.records.held_hosts(sweep.id),
        "agents": [_agent(member, now) for member in members],
    }


def _agent(member: Member, now: datetime) -> dict[str, Any]:
    row = member.row
    return {
        "name": row.name,
        "host": row.host,
        "device": member.device,
        "state": member.state,
        "hold": row.hold.value,
        "run": row.run,
        "since": row.created_at.isoformat(),
        "heard": row.heartbeat_at.isoformat(),
        "heard_s": round((now - row.heartbeat_at).total_seconds(), 1),
        "ended": member.ended,
        "failed": member.failed,
        "versions": dict(member.versions),
        "actions": list(member.actions),
    }


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"runs: got {str(value)[:40]!r}; send a list of the runs' names")
    return value


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        what = f"one of {', '.join(ACTIONS)}" if name == "action" else "an agent's name or a host"
        raise Invalid(f"{name}: got {str(value)[:40]!r}; send {what}")
    return value
