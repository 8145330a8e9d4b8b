"""`file_stream`: history, system metrics, summary and console of a run, as the client streams them.

The client gives up on a run at any 4xx, so only a run that is gone gets one. Lines carry their numbers, so what is
sent twice is stored once. The answer's `stopped` asks the process to end by itself.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import StreamPost, run_is_gone
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.lines import Stream, parse
from prunefleet.infra.hub.users.access import may
from prunefleet.infra.wire.http import authenticate, endpoint, parse_json, too_large

log = logging.getLogger(__name__)
_FILES = {"wandb-history.jsonl": Stream.HISTORY, "wandb-events.jsonl": Stream.EVENTS, "output.log": Stream.CONSOLE}
_SUMMARY = "wandb-summary.json"
_MOST = 1 << 53


def routes(hub: Hub) -> list[BaseRoute]:
    """`POST /files/{entity}/{project}/{run}/file_stream`."""

    def serve(request: Request, body: bytes) -> Response:
        user = authenticate(request, hub)
        content = inflated(body, hub.limits.body) if request.headers.get("content-encoding") == "gzip" else body
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "run"))
        if not may(user, entity):
            raise Missing(run_is_gone(entity, project, name))
        run = hub.stream(entity, project, name, read_post(parse_json(content)))
        return JSONResponse({"stopped": run.stop_requested_at is not None, "limits": {}})

    return [Route("/files/{entity}/{project}/{run}/file_stream", endpoint(serve, hub.limits.body), methods=["POST"])]


def inflated(body: bytes, limit: int) -> bytes:
    """A body without its gzip, which must not be a small one that holds a large one. Raises `Invalid`, `TooLarge`."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = unpack.decompress(body, limit + 1)
    except zlib.error as error:
        raise Invalid(f"body: not gzip ({error})") from error
    if len(content) > limit:
        raise too_large(limit)
    if not unpack.eof:
        raise Invalid("body: its gzip ends too early; send it again")
    return content


def read_post(body: dict[str, Any]) -> StreamPost:
    """A request's body as the hub takes it; files that are not streamed line by line are passed over.

    Raises `Invalid` for what no client sends: numbers or lists that are something else.
    """
    files = body.get("files") or {}
    if not isinstance(files, dict):
        raise Invalid(f"files: got {type(files).__name__}; send a JSON object")
    chunks = {name: _chunk(name, chunk) for name, chunk in files.items() if isinstance(chunk, dict)}
    summary = [parse(line) for line in chunks.get(_SUMMARY, (0, []))[1]]
    return StreamPost(
        lines={_FILES[name]: chunk for name, chunk in chunks.items() if name in _FILES},
        summary=summary[-1] if summary else None,
        preempting=bool(body.get("preempting")),
        complete=bool(body.get("complete")),
        exit_code=_whole("exitcode", body.get("exitcode")),
    )


def _chunk(name: str, chunk: dict[str, Any]) -> tuple[int, Sequence[str]]:
    content = chunk.get("content") or []
    if not isinstance(content, list):
        raise Invalid(f"files.{name[:80]}.content: got {type(content).__name__}; send a list of lines")
    offset = _whole(f"files.{name[:80]}.offset", chunk.get("offset"))
    return max(0, offset), [str(line) for line in content]


def _whole(field: str, value: object) -> int:
    """A number that the database can hold; none is 0. Raises `Invalid`."""
    if value is None:
        return 0
    if not isinstance(value, int | float) or not -_MOST <= value <= _MOST:
        raise Invalid(f"{field}: got {str(value)[:40]!r}; send a whole number")
    return int(value)
