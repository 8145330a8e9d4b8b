"""How the hub is reached: TLS, through a proxy, beyond this machine; and what every answer says to browsers.

Forwarded headers are believed from proxies that a setting names, and from nobody else.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefleet.infra.hub.store.errors import StartupError

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
# Pages and files bring stricter ones of their own; these stand where an answer has none.
HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(frozen=True)
class Front:
    """TLS certificate and key (PEM), the path that a proxy puts before every address, and the proxies believed.

    Raises `StartupError` for a certificate or key that cannot be used, an impossible path, or what is no address.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    root_path: str = ""
    trusted_proxies: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.root_path):
            raise StartupError(f"root path: got {self.root_path!r}; give a path such as /hub, without a '/' at its end")
        for each in self.trusted_proxies:
            try:
                ipaddress.ip_address(each)
            except ValueError as error:
                raise StartupError(f"trusted proxies: got {each!r}; give addresses such as 127.0.0.1") from error
        if (self.tls_cert is None) != (self.tls_key is None):
            raise StartupError("tls cert, tls key: got one of them; give both, or none for plain HTTP")
        if self.tls_cert is not None and self.tls_key is not None:
            _load(self.tls_cert, self.tls_key)

    @property
    def scheme(self) -> str:
        """`https` with a certificate, else `http`."""
        return "https" if self.tls_cert else "http"


def front(cert: str | None, key: str | None, root_path: str | None, proxies: str | None) -> Front:
    """The front that the settings describe: files, a path, and addresses separated by commas."""
    names = frozenset(part.strip() for part in (proxies or "").split(",") if part.strip())
    return Front(Path(cert) if cert else None, Path(key) if key else None, root_path or "", names)


def _load(cert: Path, key: Path) -> None:
    """Raises `StartupError` where uvicorn could not serve with these; it must not ask a terminal for a password."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise StartupError(
            f"tls cert, tls key: got {str(cert)!r} and {str(key)!r}, {why}; "
            "give a PEM certificate and its key without a password"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure(host: str, scheme: str = "http") -> str | None:
    """What to tell somebody who listens on more than this machine without TLS; None otherwise."""
    if is_loopback(host) or scheme == "https":
        return None
    return f"warning: listening on {host} unencrypted; keys and data can be read on the way (--tls-cert, --tls-key)"


class Doorway:
    """The application behind its front: says where a request really came in, and adds headers to every answer."""

    def __init__(self, app: App, front: Front) -> None:
        self._app = app
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = False

        async def complete(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = with_headers(message.get("headers", ()))
            await send(message)

        try:
            await self._app(self._came_in(scope), receive, complete)
        except Exception:
            log.exception("%s /%s", scope["method"], scope["path"].split("/")[1])  # an address's end may be a secret
            if begun:
                raise
            await _fail(complete)

    def _came_in(self, scope: Scope) -> Scope:
        told = self._forwarded(scope)
        prefix = told.get("prefix", self._front.root_path)
        headers = [pair for pair in scope["headers"] if "host" not in told or pair[0] != b"host"]
        if "host" in told:
            headers.append((b"host", told["host"].encode()))
        changed = {**scope, "scheme": told.get("proto", scope.get("scheme", "http")), "headers": headers}
        if prefix:
            changed |= {"root_path": prefix, "path": prefixed(prefix, scope["path"])}
        return changed

    def _forwarded(self, scope: Scope) -> dict[str, str]:
        """What a trusted proxy says of the request it passes on: proto, host, prefix, each only in its proper form."""
        client = scope.get("client")
        if not client or client[0] not in self._front.trusted_proxies:
            return {}
        said = {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in scope["headers"]}
        found = {
            "proto": said.get("x-forwarded-proto", ""),
            "host": said.get("x-forwarded-host", ""),
            "prefix": said.get("x-forwarded-prefix", "").rstrip("/"),
        }
        fits = {
            "proto": found["proto"] in ("http", "https"),
            "host": _HOST.fullmatch(found["host"]) is not None,
            "prefix": bool(found["prefix"]) and _PREFIX.fullmatch(found["prefix"]) is not None,
        }
        return {key: value for key, value in found.items() if fits[key]}


async def _fail(send: Send) -> None:
    body = b'{"error": "the hub failed on this request; its log says why"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def prefixed(prefix: str, path: str) -> str:
    """The whole path of a request, whether the proxy has passed it on whole or without its prefix."""
    return path if path == prefix or path.startswith(f"{prefix}/") else prefix + path


def with_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An answer's headers, completed by those that it must not lack."""
    own = list(headers)
    names = {name.lower() for name, _value in own}
    return [*own, *(pair for pair in HEADERS if pair[0] not in names)]
