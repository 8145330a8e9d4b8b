"""`file_stream`: history, system metrics, summary and console of a run, as the client streams them.

The client gives up on a run at any 4xx, so only a run that is gone gets one. Lines carry their numbers, so what is
sent twice is stored once. The answer's `stopped` asks the process to end by itself.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from infra.hub.access import may
from infra.hub.errors import Missing
from infra.hub.runs import StreamPost, run_is_gone
from infra.hub.service import Hub
from infra.hub.store_lines import Stream, parse
from infra.wire.http import authenticate, endpoint, parse_json

log = logging.getLogger(__name__)
_FILES = {"wandb-history.jsonl": Stream.HISTORY, "wandb-events.jsonl": Stream.EVENTS, "output.log": Stream.CONSOLE}
_SUMMARY = "wandb-summary.json"


def routes(hub: Hub) -> list[BaseRoute]:
    """`POST /files/{entity}/{project}/{run}/file_stream`."""

    def serve(request: Request, body: bytes) -> Response:
        user = authenticate(request, hub)
        content = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "run"))
        if not may(user, entity):
            raise Missing(run_is_gone(entity, project, name))
        run = hub.stream(entity, project, name, read_post(parse_json(content)))
        return JSONResponse({"stopped": run.stop_requested_at is not None, "limits": {}})

    return [Route("/files/{entity}/{project}/{run}/file_stream", endpoint(serve), methods=["POST"])]


def read_post(body: dict[str, Any]) -> StreamPost:
    """A request's body as the hub takes it; files that are not streamed line by line are passed over."""
    files = body.get("files") or {}
    chunks = {name: _chunk(chunk) for name, chunk in files.items() if isinstance(chunk, dict)}
    summary = [parse(line) for line in chunks.get(_SUMMARY, (0, []))[1]]
    return StreamPost(
        lines={_FILES[name]: chunk for name, chunk in chunks.items() if name in _FILES},
        summary=summary[-1] if summary else None,
        preempting=bool(body.get("preempting")),
        complete=bool(body.get("complete")),
        exit_code=int(body.get("exitcode") or 0),
    )


def _chunk(chunk: dict[str, Any]) -> tuple[int, Sequence[str]]:
    content = chunk.get("content") or []
    return int(chunk.get("offset") or 0), [str(line) for line in content]
