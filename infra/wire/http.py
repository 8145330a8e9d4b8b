"""What every endpoint of the wire shares: the body, the user behind the key, and errors as the client reads them."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import HubError, Invalid, TooLarge, Unauthorized
from prunefleet.infra.hub.store.rows import UserRow

log = logging.getLogger(__name__)
BODY_LIMIT = 64 << 20  # bytes; one file_stream request of the client stays below 16 MiB
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")

Handler = Callable[[Request, bytes], Response]
INTERNAL = "the hub failed on this request; its log says why"
NO_KEY = "the API key is missing or not known here; use the one the hub printed (WANDB_API_KEY or `wandb login`)"


def endpoint(handler: Handler, limit: int = BODY_LIMIT) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: reads the body, runs `handler(request, body)` in the thread pool, turns errors to JSON."""

    async def serve(request: Request) -> Response:
        try:
            return await run_in_threadpool(handler, request, await _body(request, limit))
        except Exception as error:
            return failure(request, error)

    return serve


def failure(request: Request, error: Exception) -> JSONResponse:
    """What a request that failed is answered; a fault of ours is told in the log, without the address's secrets."""
    if isinstance(error, RecursionError):  # whatever was nested so deep was not meant to be read
        error = Invalid("request: nested too deep; send it flat")
    if isinstance(error, HubError):
        return error_response(str(error), error.status)
    log.error("%s /%s", request.method, request.url.path.split("/")[1], exc_info=error)
    return error_response(INTERNAL, 500)


class Json(JSONResponse):
    """JSON in ASCII: what a client once logged may hold half of a surrogate pair, which UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def error_response(message: str, status: int) -> JSONResponse:
    """An error in the shape that both halves of the client print."""
    return Json({"errors": [{"message": message}], "error": message}, status)


def key_of(request: Request) -> str:
    """The key that the request carries (HTTP Basic, user `api`); "" for none."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(credentials).decode().partition(":")[2] if scheme.lower() == "basic" else ""
    except ValueError:  # not base64, not ASCII, not UTF-8
        return ""


def authenticate(request: Request, hub: Hub) -> UserRow:
    """The user whose key the request carries; raises `Unauthorized`."""
    key = key_of(request)
    user = hub.auth.user_of(key) if key else None
    if user is None:
        raise Unauthorized(NO_KEY)
    return user


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; raises `Invalid`."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Invalid(f"body: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Invalid(f"body: got {type(value).__name__}; send a JSON object")
    return _encodable(value) if _HALF.search(body) else value


def _encodable(value: dict[str, Any]) -> dict[str, Any]:
    """The value with halves of surrogate pairs, which JSON can hold and a database cannot, as question marks."""
    whole: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return whole


def too_large(limit: int) -> TooLarge:
    """The refusal of a body."""
    return TooLarge(f"body: more than {limit} bytes; send less at once, or start the hub with a higher --max-body-mb")


def announced(request: Request) -> int:
    """How many bytes the request says it brings; 0 where it does not say."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else 0


async def _body(request: Request, limit: int) -> bytes:
    if announced(request) > limit:
        raise too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)
