"""How hosts join and leave: tokens made and exchanged, a key given up, and the wheel that a new host installs.

Tokens and keys are in bodies and headers alone: addresses end up in logs.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Denied, Invalid, Missing
from prunefleet.infra.hub.store.rows import SweepRow
from prunefleet.infra.hub.users.access import may
from prunefleet.infra.hub.users.host_keys import MINUTES
from prunefleet.infra.hub.users.join_line import join_line
from prunefleet.infra.hub.users.wheel import wheel
from prunefleet.infra.wire.http import authenticate, endpoint, key_of, parse_json

SMALL = 10_000  # bytes of a request


def routes(hub: Hub) -> list[BaseRoute]:
    """`/join/tokens` for people with a key, `/join` for whoever has a token, `/leave` for a host's key, the wheel."""

    def invite(request: Request, body: bytes) -> Response:
        user, asked = authenticate(request, hub), parse_json(body)
        if hub.host_keys.is_hosts(key_of(request)):
            raise Denied("key: it is a host's, which invites no other; use a person's")

        def find(entity: str, project: str, name: str) -> SweepRow | None:
            return hub.records.sweep(entity, project, name) if may(user, entity) else None

        sweep = hub.host_keys.sweep_named(_text(asked, "sweep"), find)
        made = hub.host_keys.invite(sweep, _number(asked, "minutes", MINUTES))
        line = join_line(str(request.base_url).rstrip("/"), made)
        return JSONResponse({**asdict(made), "line": line}, 201, headers={"Cache-Control": "no-store"})

    def accept(_request: Request, body: bytes) -> Response:
        asked = parse_json(body)
        joined = hub.host_keys.accept(_text(asked, "token"), _text(asked, "host"))
        return JSONResponse(asdict(joined), 201, headers={"Cache-Control": "no-store"})

    def leave(request: Request, _body: bytes) -> Response:
        authenticate(request, hub)
        return JSONResponse({"host": hub.host_keys.give_up(key_of(request))})

    def serve_wheel(request: Request, _body: bytes) -> Response:
        made = wheel()
        if f"{request.path_params['name']}.whl" != made.name:
            raise Missing(f"wheel: this hub has {made.name} alone")
        return Response(made.content, media_type="application/zip", headers={"ETag": f'"{made.sha256}"'})

    return [
        Route("/join", endpoint(accept, SMALL), methods=["POST"]),
        Route("/join/tokens", endpoint(invite, SMALL), methods=["POST"]),
        Route("/leave", endpoint(leave, SMALL), methods=["POST"]),
        Route("/wheel/{name}.whl", endpoint(serve_wheel, SMALL), methods=["GET"]),
    ]


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name}: got {type(value).__name__}; send a text")  # never the value: it may be a secret
    return value


def _number(asked: dict[str, Any], name: str, default: float) -> float:
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"{name}: got {type(value).__name__}; send a number")
    return float(value)
