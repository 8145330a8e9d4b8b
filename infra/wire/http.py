"""What every endpoint of the wire shares: the body, the user behind the key, and errors as the client reads them."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infra.hub.errors import HubError, Invalid, Unauthorized
from infra.hub.rows import UserRow
from infra.hub.service import Hub

log = logging.getLogger(__name__)
BODY_LIMIT = 64 << 20  # bytes; one file_stream request of the client stays below 16 MiB
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")

Handler = Callable[[Request, bytes], Response]
NO_KEY = "the API key is missing or not known here; use the one the hub printed (WANDB_API_KEY or `wandb login`)"


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: reads the body, runs `handler(request, body)` in the thread pool, turns errors to JSON."""

    async def serve(request: Request) -> Response:
        try:
            return await run_in_threadpool(handler, request, await _body(request))
        except HubError as error:
            return error_response(str(error), error.status)
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            return error_response("the hub failed on this request; its log says why", 500)

    return serve


def error_response(message: str, status: int) -> JSONResponse:
    """An error in the shape that both halves of the client print."""
    return JSONResponse({"errors": [{"message": message}], "error": message}, status)


def authenticate(request: Request, hub: Hub) -> UserRow:
    """The user whose key the request carries (HTTP Basic, user `api`); raises `Unauthorized`."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    try:
        key = base64.b64decode(credentials).decode().partition(":")[2] if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        key = ""
    user = hub.auth.user_of(key) if key else None
    if user is None:
        raise Unauthorized(NO_KEY)
    return user


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; raises `Invalid`."""
    try:
        value = json.loads(body or b"{}")
    except ValueError as error:
        raise Invalid(f"body: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Invalid(f"body: got {type(value).__name__}; send a JSON object")
    return _encodable(value) if _HALF.search(body) else value


def _encodable(value: dict[str, Any]) -> dict[str, Any]:
    """The value with halves of surrogate pairs, which JSON can hold and a database cannot, as question marks."""
    whole: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return whole


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise Invalid(f"body: more than {BODY_LIMIT} bytes; send less at once")
        chunks.append(chunk)
    return b"".join(chunks)
