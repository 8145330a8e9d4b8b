"""The hub as a process: routes put together, a socket, a ready file, and an orderly end.

`prunefleet hub` and `python -m prunefleet.infra.server` both call `run`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hmac
import json
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.dashboard import pages
from prunefleet.infra.dashboard.render import prepare
from prunefleet.infra.front import Doorway, Front, exposure, front, is_loopback
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.lifecycle import Timeouts
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.errors import HubError, Invalid, StartupError, Unauthorized
from prunefleet.infra.hub.suggest.suggester import start_suggester
from prunefleet.infra.hub.upkeep import address_file
from prunefleet.infra.hub.upkeep.admin import Admin
from prunefleet.infra.hub.users.auth import write_private
from prunefleet.infra.hub.users.limits import Limits
from prunefleet.infra.wire import routes as wire
from prunefleet.infra.wire.http import endpoint, error_response, parse_json

REAP_EVERY_S = 2.0
SWITCH_S = 0.001  # for how long a thread may compute while another one waits
GC_THRESHOLD = (20_000, 10, 50)


def create_app(hub: Hub, admin_token: str, front: Front | None = None) -> Starlette:
    """The hub's web application: the wire, the pages, and what an administrator may do."""
    routes: list[BaseRoute] = [*wire.routes(hub), *admin_routes(hub, admin_token), *pages.routes(hub), health(hub)]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Doorway, front=front or Front())],
        exception_handlers={HTTPException: _not_served},
    )


def _not_served(_request: Request, error: Exception) -> Response:
    """An unknown address or a method that it does not take, in the shape of every other refusal."""
    assert isinstance(error, HTTPException)
    return error_response(f"address: {error.detail.lower()}; docs/hub.md tells what is served", error.status_code)


def health(hub: Hub) -> BaseRoute:
    """`/healthz`, as W&B Server has it, for what starts and watches servers: well if the database answers."""

    def healthy(_request: Request, _body: bytes) -> Response:
        return JSONResponse({"healthy": hub.auth.has_keys()})

    return Route("/healthz", endpoint(healthy), methods=["GET"])


def admin_routes(hub: Hub, admin_token: str) -> list[BaseRoute]:
    """What `Authorization: Bearer <admin token>` may do: make users and sign-in links, delete a sweep, administrate."""
    admin = Admin(hub)

    def checked(request: Request, body: bytes) -> dict[str, Any]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), admin_token.encode()):
            raise Unauthorized("the admin token is missing or wrong; send `Authorization: Bearer <admin token>`")
        return parse_json(body)

    def users(request: Request, body: bytes) -> Response:
        asked = checked(request, body)
        name, key = _field(asked, "username"), asked.get("api_key")
        if key is not None and not isinstance(key, str):
            raise Invalid(f"api_key: got {type(key).__name__}; send a text of at least 40 characters, or leave it out")
        made = hub.auth.add_user(name, key, admin=asked.get("admin") is True)
        return JSONResponse({"username": name, "api_key": made}, 201)

    def tickets(request: Request, body: bytes) -> Response:
        return JSONResponse({"ticket": hub.auth.ticket_for(_field(checked(request, body), "username"))}, 201)

    def delete_sweep(request: Request, body: bytes) -> Response:
        checked(request, body)
        hub.delete_sweep(hub.records.find_sweep(**request.path_params).id)
        return JSONResponse({})

    def perform(request: Request, body: bytes) -> Response:
        return JSONResponse(admin.perform(request.path_params["operation"], checked(request, body)))

    return [
        Route("/admin/perform/{operation}", endpoint(perform), methods=["POST"]),
        Route("/admin/users", endpoint(users), methods=["POST"]),
        Route("/admin/tickets", endpoint(tickets), methods=["POST"]),
        Route("/admin/sweeps/{entity}/{project}/{name}", endpoint(delete_sweep), methods=["DELETE"]),
    ]


def run(
    data: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    admin_token_file: Path | None = None,
    ready_file: Path | None = None,
    timeouts: Timeouts | None = None,
    front: Front | None = None,
    limits: Limits | None = None,
) -> int:
    """Serve `data` until a signal says to stop; returns 0, or 2 after one line that says why it cannot start."""
    try:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listen(host, port))
            hub = stack.enter_context(open_hub(data, timeouts, limits))
            address_file.remove(data)  # one that a killed hub left
            stack.callback(address_file.remove, data)
            _serve(hub, listener, data, host, front or Front(), admin_token_file, ready_file)
    except StartupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def open_hub(data: Path, timeouts: Timeouts | None = None, limits: Limits | None = None) -> Iterator[Hub]:
    """A hub on that folder with its suggester and its reaper at work. Raises `StartupError`."""
    store = Store(data)
    try:
        hub = _hub(store, timeouts, limits)
        with start_suggester(hub) as hub.suggester, _reaping(hub):
            yield hub
            with contextlib.suppress(HubError):  # a full disk must not spoil an orderly end
                hub.auth.note_uses(at_once=True)
    finally:
        store.close()


def _hub(store: Store, timeouts: Timeouts | None, limits: Limits | None) -> Hub:
    """A hub on an open store. Raises `StartupError` when its secret or its files cannot be read or made."""
    try:
        return Hub(store, timeouts=timeouts, limits=limits)
    except OSError as error:
        raise StartupError(f"data folder: {error.filename}: {error.strerror}; make it writable, with room") from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `StartupError` for a port that is taken or an address that is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        raise StartupError(f"host, port: got {host}:{port}, {why}; stop what uses it, or take --port 0") from error
    return listener


def _serve(
    hub: Hub,
    listener: socket.socket,
    data: Path,
    host: str,
    front: Front,
    admin_token_file: Path | None,
    ready_file: Path | None,
) -> None:
    token_file = admin_token_file or data / "admin_token"
    token = load_admin_token(token_file)
    app = create_app(hub, token, front)
    _be_prompt()
    port = listener.getsockname()[1]
    url = address(host, port, front.scheme)
    _check_keys(hub, host)
    refused: list[Exception] = []
    if (warning := exposure(host, front.scheme)) is not None:
        print(warning, file=sys.stderr)
    if ready_file is not None and not os.access(ready_file.parent, os.W_OK):
        raise StartupError(f"ready file: got {str(ready_file)!r}; name a file in a folder to write in")

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            tell_ready()
        except (HubError, OSError) as error:
            refused.append(error)
            server.should_exit = True
        yield

    def tell_ready() -> None:
        try:
            told = address_file.local_url(host, port, front.scheme)
            address_file.write(data, told, token_file, front.tls_cert)
        except OSError as error:  # with a full disk a hub is still there to read from
            print(f"warning: administrators' commands will not find this hub: {error}", file=sys.stderr)
        key = hub.auth.ensure_first_user()  # made last: a hub that cannot start must not use up its only telling
        if ready_file is not None:
            ready = {"url": url, "api_key": key, "admin_token": token, "pid": os.getpid()}
            write_private(ready_file, json.dumps(ready).encode())
        # Output often ends up in a log: whoever asked for the ready file gets the key there, and only there.
        for line in to_paste(url, key if not ready_file else None):
            print(line, flush=True)
        if sys.stdout.isatty():
            ticket = hub.auth.ticket_for(hub.auth.users()[0].username)
            print(f"Sign in within ten minutes: {url}/login?ticket={ticket}", flush=True)
        threading.Thread(target=prepare, name="templates", daemon=True).start()

    app.router.lifespan_context = lifespan
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,
        server_header=False,
        proxy_headers=False,  # uvicorn would believe anybody on this machine; `Doorway` believes whom a setting names
        ssl_certfile=front.tls_cert,
        ssl_keyfile=front.tls_key,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again after its end; ours is still to come
    server = _Server(config)
    server.run(sockets=[listener])
    if refused:
        raise StartupError(f"data folder: the hub cannot start: {refused[0]}") from refused[0]


def to_paste(url: str, key: str | None) -> list[str]:
    """What to paste where clients run, and where the pages are; of a key that is not told here, where it is."""
    later = "# WANDB_API_KEY: as told at the first start; another one: prunefleet hub keys add NAME"
    export = f"export WANDB_API_KEY={shlex.quote(key)}" if key else later
    return [f"Hub at {url}", f"export WANDB_BASE_URL={shlex.quote(url)}", export, f"Page: {url}/"]


class _Server(uvicorn.Server):
    """Ends in order however often it is asked: it takes some seconds at most, and breaking off prints a traceback."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        super().handle_exit(sig, frame)
        self.force_exit = False


def _be_prompt() -> None:
    """Short turns for each thread, so that a heartbeat does not wait for a page; and no search of what stays for ever
    for garbage, which took longer than most requests."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)


def load_admin_token(path: Path) -> str:
    """The token in `path`, made there (mode 0600) when there is no such file. Raises `StartupError`."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, secrets.token_hex(20).encode())
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"admin token file: got {str(path)!r}, {error}; name a file that can be read") from error
    if not token:
        raise StartupError(f"admin token file: {str(path)!r} is empty; write a token into it, or delete it")
    return token


def _check_keys(hub: Hub, host: str) -> None:
    """Raises `StartupError` where others could reach a hub that nobody has a key to."""
    if not is_loopback(host) and hub.auth.users() and not hub.auth.has_keys():
        raise StartupError(
            f"keys: no user has one, and {host} is reached from elsewhere; "
            "make one with `prunefleet hub keys add NAME`, or listen on 127.0.0.1"
        )


def address(host: str, port: int, scheme: str = "http") -> str:
    """The URL that agents on this machine, or for a wildcard address its name, can reach."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


@contextlib.contextmanager
def _reaping(hub: Hub) -> Iterator[None]:
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(REAP_EVERY_S):
            with contextlib.suppress(Exception):  # a full disk must not end the watch; the next round tries again
                hub.reap()
                hub.auth.note_uses()
            hub.early_stop.watch()

    thread = threading.Thread(target=loop, name="hub-reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _field(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise Invalid(f"{name}: got {value!r}; send a text")
    return value


def main(argv: list[str] | None = None) -> int:
    """`python -m prunefleet.infra.server`: the hub alone, with its timeouts open to tests."""
    parser = argparse.ArgumentParser(prog="python -m prunefleet.infra.server", description=run.__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--admin-token-file", type=Path)
    parser.add_argument("--ready-file", type=Path)
    for name in ("--tls-cert", "--tls-key", "--root-path", "--trusted-proxies"):
        parser.add_argument(name)
    parser.add_argument("--limits", type=json.loads, default={}, help='by name, such as {"runs_project": 10}')
    parser.add_argument("--timing", type=json.loads, default={}, help='seconds by name, such as {"run_silence": 60}')
    asked = parser.parse_args(argv)
    try:
        way = front(asked.tls_cert, asked.tls_key, asked.root_path, asked.trusted_proxies)
        limits = Limits(**asked.limits)
    except StartupError as error:
        print(error, file=sys.stderr)
        return 2
    timeouts = Timeouts(**asked.timing)
    return run(asked.data, asked.host, asked.port, asked.admin_token_file, asked.ready_file, timeouts, way, limits)


if __name__ == "__main__":
    sys.exit(main())
