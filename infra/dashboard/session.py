"""Who is looking: sign-in by key or by a signed link, kept in a signed cookie. What changes something is sent by a
form of this server's own pages, or not at all."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.dashboard.render import answer, page
from prunefleet.infra.hub.hub import Hub

COOKIE = "prunefleet_session"
DAYS_30 = 30 * 24 * 3600
LONGEST_FORM = 10_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Endpoint = Callable[[Request], Response]


def routes(hub: Hub) -> list[BaseRoute]:
    """/login (key form, or ?ticket= from a signed link), /logout, and /authorize, where `wandb login` sends people."""

    def form(request: Request) -> Response:
        ticket = request.query_params.get("ticket")
        if ticket is None:
            return _form(request)
        username = hub.auth.user_of_ticket(ticket)
        return (
            _enter(request, hub, username)
            if username
            else _form(request, "This link has expired; ask for another.", 401)
        )

    async def submit(request: Request) -> Response:
        fields = parse_qs((await body(request)).decode("utf-8", "replace"))
        key = fields.get("key", [""])[0].strip()
        username = await run_in_threadpool(hub.host_keys.person_of, key)
        if username is None:
            return _form(request, "The server does not know this key.", 401)
        return _enter(request, hub, username)

    def leave(request: Request) -> Response:
        response = RedirectResponse(f"{root(request)}/login", status_code=303)
        response.delete_cookie(COOKIE, path=root(request) or "/")
        return response

    return [
        Route("/login", form, methods=["GET"]),
        Route("/login", submit, methods=["POST"]),
        Route("/logout", leave, methods=["POST"]),
        Route("/authorize", lambda request: RedirectResponse(f"{root(request)}/login", status_code=302)),
    ]


def guarded(hub: Hub, endpoint: Endpoint) -> Endpoint:
    """The endpoint for those signed in; people are led to the form, programs get 401."""

    def guard(request: Request) -> Response:
        username = hub.auth.user_of_session(request.cookies.get(COOKIE, ""))
        user = hub.auth.user_named(username) if username else None
        if user is not None:
            request.state.user = user
            return endpoint(request)
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"{root(request)}/login?{urlencode({'next': request.url.path})}", status_code=303)
        return answer({"error": "sign in at /login"}, 401)

    return guard


def own_form(endpoint: Endpoint) -> Endpoint:
    """The endpoint for forms of this server's own pages: another site's, and a page of another port, are refused.

    A browser says where a form stood in `Sec-Fetch-Site`, or over plain HTTP in `Origin`; the cookie's `SameSite` holds
    back other sites alone. Source: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """

    def checked(request: Request) -> Response:
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = site == "same-origin" if site else urlsplit(origin or "").netloc == request.url.netloc
        if not own:
            message = "This was not sent from a page of this server; open its page, and press the button there."
            return page("message.html", 403, heading="Not from here", message=message, **around(request))
        return endpoint(request)

    return checked


def root(request: Request) -> str:
    """What a proxy puts before every path of this server; "" without one."""
    return str(request.scope.get("app_root_path", request.scope.get("root_path", "")))


def around(request: Request) -> dict[str, Any]:
    """What every template needs to know of the request."""
    return {
        "username": getattr(getattr(request.state, "user", None), "username", None),
        "root": root(request),
        "base_url": str(request.base_url).rstrip("/"),
        "on_loopback": request.base_url.hostname in LOOPBACK,
    }


def local(address: str) -> str:
    """The address if it is a path of this server, else "/": a link must not lead people elsewhere."""
    safe = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if safe else "/"


def _form(request: Request, problem: str = "", status: int = 200) -> Response:
    onward = local(request.query_params.get("next", f"{root(request)}/"))
    return page("login.html", status, problem=problem, onward=onward, **around(request))


def _enter(request: Request, hub: Hub, username: str) -> Response:
    response = RedirectResponse(local(request.query_params.get("next", f"{root(request)}/")), status_code=303)
    response.set_cookie(
        COOKIE,
        hub.auth.session_of(username, DAYS_30),
        max_age=DAYS_30,
        path=root(request) or "/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


async def body(request: Request) -> bytes:
    """The form, as long as it has a form's length."""
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > LONGEST_FORM:
            return b""
    return found
