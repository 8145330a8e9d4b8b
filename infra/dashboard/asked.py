"""What signed-in people ask of a sweep's agents with the page's buttons."""

from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.dashboard import session
from prunefleet.infra.dashboard.reader import Seen
from prunefleet.infra.dashboard.render import page, segment
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.holds import ACTIONS
from prunefleet.infra.hub.store.errors import HubError


def routes(hub: Hub) -> list[BaseRoute]:
    """`…/sweeps/NAME/agents`: takes the form and leads back to the sweep's page."""
    ask = session.guarded(hub, session.own_form(lambda request: _ask(hub, request)))

    async def taken(request: Request) -> Response:
        request.state.fields = parse_qs((await session.body(request)).decode("utf-8", "replace"))
        return await run_in_threadpool(ask, request)

    address = "/{entity}/{project}/sweeps/{name}/agents"
    return [Route(address, taken, methods=["POST"]), Route(address, _back, methods=["GET"])]


def _ask(hub: Hub, request: Request) -> Response:
    fields: dict[str, list[str]] = request.state.fields
    sweep = Seen(hub, request.state.user).sweep(*(request.path_params[key] for key in ("entity", "project", "name")))
    if sweep is None:
        return _told(request, "There is no such sweep.", 404)
    try:
        for action in ACTIONS:
            for target in fields.get(action, ()):
                hub.hold_agents(sweep.id, action, target)
    except HubError as error:
        return _told(request, str(error), error.status)
    return _back(request)


def _back(request: Request) -> Response:
    entity, project, name = (segment(request.path_params[key]) for key in ("entity", "project", "name"))
    onward = f"{session.root(request)}/{entity}/{project}/sweeps/{name}#agents"
    return RedirectResponse(onward, status_code=303)


def _told(request: Request, message: str, status: int) -> Response:
    return page("message.html", status, heading="Not done", message=message, **session.around(request))
