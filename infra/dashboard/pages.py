"""The dashboard's addresses: pages for people, and beside each its JSON twin for the page's own polling.

The addresses are those that the wandb client prints: /ENTITY/PROJECT, …/sweeps/ID and …/runs/ID.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from prunefleet.infra.dashboard import asked, session
from prunefleet.infra.dashboard.reader import Seen
from prunefleet.infra.dashboard.render import answer, digest, fragment, page, segment
from prunefleet.infra.dashboard.trials import Question, question
from prunefleet.infra.dashboard.views import SweepView, headline, sweep_view
from prunefleet.infra.dashboard.views_answer import controls_of, read_on_test
from prunefleet.infra.dashboard.views_run import run_view
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Conflict
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, SweepRow
from prunefleet.infra.hub.users.host_keys import MINUTES
from prunefleet.infra.hub.users.join_line import join_line

LIVE_MS = 2000
IDLE_MS = 15000
LOOSE_RUNS = 200
LISTED_SWEEPS = 100
NO_SWEEP = Question("", True, False, "top1", None, "", "")

SWEEP_PARTS = {
    "head": "_sweep_head.html",
    "answer": "_sweep_answer.html",
    "best": "_sweep_best.html",
    "trials": "_trials.html",
    "agents": "_agents.html",
}
RUN_PARTS = {name: f"_run_{name}.html" for name in ("head", "figures", "groups", "tables", "files", "log")}


def routes(hub: Hub) -> list[BaseRoute]:
    """Everything the dashboard serves; mount it after the wire, whose addresses are more special."""
    boot = secrets.token_hex(4)
    found: list[BaseRoute] = [
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static"),
        *session.routes(hub),
        *asked.routes(hub),
    ]
    for address, find in (
        ("/", Pages.home),
        ("/{entity}/{project}", Pages.project),
        ("/{entity}/{project}/sweeps/{name}", Pages.sweep),
        ("/{entity}/{project}/runs/{name}", Pages.run),
    ):
        endpoint = session.guarded(hub, _endpoint(hub, boot, find))
        found += [Route(f"{address.rstrip('/')}/data.json", endpoint), Route(address, endpoint)]
    invite = session.guarded(hub, session.own_form(_inviting(hub)))
    return [*found, Route("/{entity}/{project}/sweeps/{name}/invite", invite, methods=["POST"]), *_elsewhere()]


def _inviting(hub: Hub) -> session.Endpoint:
    """The line for another host, with a new token in it; shown once, and stored by nobody on the way."""

    def invite(request: Request) -> Response:
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "name"))
        sweep = Seen(hub, request.state.user).sweep(entity, project, name)
        if sweep is None:
            return missing(request, f"There is no sweep {name} in {entity}/{project}.")
        around = session.around(request)
        try:
            invitation = hub.host_keys.invite(sweep)
        except Conflict as error:
            return page("message.html", error.status, heading="No token", message=f"{error}.", **around)
        line = join_line(around["base_url"], invitation)
        return page("invite.html", sweep=sweep, line=line, invitation=invitation, minutes=round(MINUTES), **around)

    return invite


def _elsewhere() -> list[BaseRoute]:
    """W&B addresses that have no page of their own here lead to the nearest one."""

    def nearest(request: Request) -> Response:
        parts = [segment(request.path_params[key]) for key in ("entity", "project")]
        if name := request.path_params.get("name"):
            parts += ["runs", segment(name)]
        return RedirectResponse("/".join([session.root(request), *parts]), status_code=302)

    tabs = [Route(f"/{{entity}}/{{project}}/{tab}", nearest) for tab in ("workspace", "table", "sweeps", "runs")]
    return [*tabs, Route("/{entity}/{project}/runs/{name}/{tab}", nearest)]


@dataclass(frozen=True)
class Found:
    """What an address leads to: the rows it stands on, and how to make the template's values from them."""

    template: str
    parts: Mapping[str, str]
    rows: object
    values: Callable[[], dict[str, Any]]


class Pages:
    """Finders over what one user sees: request → what is shown, or a sentence saying what is missing."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._hub = seen.all  # for what is asked by the ids of rows that were seen

    def home(self, request: Request) -> Found | str:
        """All projects with their sweeps."""
        projects = self._seen.projects()
        listed = [(one, self._listed(self._seen.sweeps(one.entity, one.name))) for one in projects]
        live = any(view.live for _, views in listed for view in views)
        return Found("home.html", {"projects": "_projects.html"}, listed, lambda: {"listed": listed, "live": live})

    def project(self, request: Request) -> Found | str:
        """One project: its sweeps, and the runs that belong to none."""
        entity, name = request.path_params["entity"], request.path_params["project"]
        project = self._project(entity, name)
        if project is None:
            return f"There is no project {entity}/{name}."
        views = self._listed(self._seen.sweeps(entity, name))
        loose = self._hub.listing.loose(project.id, LOOSE_RUNS)
        live = any(view.live for view in views) or any(run.finished_at is None for run in loose)
        values = {"project": project, "sweeps": views, "loose": loose, "live": live}
        parts = {"sweeps": "_sweeps.html", "loose": "_loose.html"}
        return Found("project.html", parts, (project, views, loose), lambda: values)

    def sweep(self, request: Request) -> Found | str:
        """One sweep, live."""
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "name"))
        sweep = self._seen.sweep(entity, project, name)
        if sweep is None:
            return f"There is no sweep {name} in {entity}/{project}."
        runs, agents = self._hub.listing.sweep_runs(sweep.id), self._hub.records.sweep_agents(sweep.id)
        held = tuple(self._hub.records.held_hosts(sweep.id))
        answered = read_on_test(runs, question(sweep))
        controls = self._controls(sweep) if answered else ()
        advice = self._hub.suggester.advice(sweep.id)

        def values() -> dict[str, Any]:
            view = sweep_view(sweep, runs, agents, controls, advice, held)
            return {"view": view, "charts": view.charts, "live": view.live}

        return Found("sweep.html", SWEEP_PARTS, (sweep, runs, agents, controls, advice, held), values)

    def run(self, request: Request) -> Found | str:
        """One run, live."""
        entity, project, name = (request.path_params[key] for key in ("entity", "project", "name"))
        run = self._seen.run(entity, project, name)
        if run is None:
            return f"There is no run {name} in {entity}/{project}."
        kept = {"files": self._hub.files.listed(run.id), "outputs": self._hub.artifacts.outputs(run.id)}
        return Found("run.html", RUN_PARTS, (run, kept), lambda: {**self._run_values(run), **kept})

    def _project(self, entity: str, name: str) -> ProjectRow | None:
        return next((one for one in self._seen.projects(entity) if one.name == name), None)

    def _controls(self, sweep: SweepRow) -> tuple[RunRow, ...]:
        project = self._project(sweep.entity, sweep.project)
        wanted = {"group": [sweep.name], "job_type": ["control"]}
        return controls_of(sweep, list(self._hub.listing.runs(project.id, wanted))) if project else ()

    def _run_values(self, run: RunRow) -> dict[str, Any]:
        sweep = self._seen.sweep(run.entity, run.project, run.sweep) if run.sweep else None
        beside = self._headline(sweep) if sweep else None
        view = run_view(
            run,
            beside.asked if beside else NO_SWEEP,
            number_in_sweep=self._hub.listing.number_in_sweep(run.id),
            history=self._hub.run_lines.history(run.id),
            console=self._hub.run_lines.console(run.id),
            full=beside.widths if beside else None,
        )
        return {"view": view, "beside": beside, "charts": {"curves": view.curves}, "live": view.live}

    def _headline(self, sweep: SweepRow) -> SweepView:
        return self._hub.listing.derived(sweep.id, ("headline", repr(sweep)), lambda runs: headline(sweep, runs))

    def _listed(self, sweeps: Sequence[SweepRow]) -> list[SweepView]:
        newest = sorted(sweeps, key=lambda one: one.created_at, reverse=True)[:LISTED_SWEEPS]
        return [self._headline(one) for one in newest]


Finder = Callable[[Pages, Request], Found | str]


def _endpoint(hub: Hub, boot: str, find: Finder) -> session.Endpoint:
    """A finder as an endpoint that serves the page, or its twin when asked for `data.json`."""

    def serve(request: Request) -> Response:
        twin = request.url.path.endswith("/data.json")
        known, moment = request.query_params.get("since", ""), f"{boot}-{hub.changes}"
        if twin and known.startswith(f"{moment}-"):
            return answer({"token": known})
        found = find(Pages(Seen(hub, request.state.user)), request)
        if isinstance(found, str):
            return missing(request, found)
        token = f"{moment}-{digest(repr(found.rows).encode())}"
        if twin and _same(known, token):
            return answer({"token": token})
        return (_twin if twin else _page)(request, found, token)

    return serve


def _same(known: str, token: str) -> bool:
    """Whether two tokens of one life of the server stand for the same rows, whatever was committed between."""
    return known.split("-")[::2] == token.split("-")[::2]


def _values(request: Request, found: Found, token: str) -> dict[str, Any]:
    values = {**found.values(), **session.around(request), "token": token}
    return {**values, "poll_ms": LIVE_MS if values["live"] else IDLE_MS}


def _page(request: Request, found: Found, token: str) -> Response:
    return page(found.template, **_values(request, found, token))


def _twin(request: Request, found: Found, token: str) -> Response:
    values = _values(request, found, token)
    fragments = {name: fragment(file, **values) for name, file in found.parts.items()}
    shown = {key: values[key] for key in ("token", "live", "poll_ms")}
    return answer({**shown, "fragments": fragments, "charts": values.get("charts", {})})


def missing(request: Request, message: str) -> Response:
    """A page that says what is not there."""
    if request.url.path.endswith("/data.json"):
        return answer({"error": message}, 404)
    return page("message.html", 404, message=message, **session.around(request))
