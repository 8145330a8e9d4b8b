"""Who is asking, what the server can do, entities and projects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunefleet.infra.hub.runs.listing import COLUMNS
from prunefleet.infra.hub.store.errors import Denied
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, SweepRow, UserRow
from prunefleet.infra.hub.users.access import may
from prunefleet.infra.wire.graphql import filters, paging
from prunefleet.infra.wire.graphql.execute import Context, Info, Resolvers
from prunefleet.infra.wire.graphql.ids import encode
from prunefleet.infra.wire.graphql.lookups import find_project, find_projects

# Features of W&B's server that are served here, added by the modules that serve them; the client asks before use.
FEATURES: set[str] = {"SWEEPS_QUERY_FILTERING"}
NEWEST_CLIENT = "0.31.0"  # that was tried; older clients read from it what the server understands


def _viewer(_root: object, info: Info) -> UserRow:
    return info.context.user


def _server_info(_root: object, _info: Info) -> dict[str, Any]:
    features = [{"name": name, "isEnabled": True} for name in sorted(FEATURES)]
    return {"features": features, "cliVersionInfo": {"max_cli_version": NEWEST_CLIENT}}


def _entity(_root: object, info: Info, name: str | None = None) -> dict[str, Any] | None:
    user = info.context.user
    return entity(name or user.username) if may(user, name or user.username) else None


def entity(name: str) -> dict[str, Any]:
    """An entity as the client sees it: here always a user, with no organisation."""
    return {"id": encode("Entity", 0), "name": name, "isTeam": False, "xxhashDigestsEnabled": False}


def _users(_root: object, info: Info, query: str | None = None) -> dict[str, Any]:
    user = info.context.user
    return paging.everything([user] if query in (None, "", user.username) else [])


def _project(
    _root: object,
    info: Info,
    name: str | None = None,
    entityName: str | None = None,  # noqa: N803
) -> ProjectRow | None:
    return find_project(info, entityName, name)


def _models(
    _root: object,
    info: Info,
    entityName: str | None = None,  # noqa: N803
    after: str | None = None,
    first: int | None = None,
) -> dict[str, Any]:
    return paging.connection(find_projects(info, entityName), first, after)


def _upsert_model(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any]:
    known = info.context
    if input.get("id"):
        raise Denied("project: renaming is not served here")
    before = find_project(info, input.get("entityName"), input.get("name"))
    project = known.hub.ensure_project(known.user, input.get("entityName"), input.get("name"))
    return {"project": project, "model": project, "inserted": before is None}


def _project_runs(
    root: ProjectRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    filters: str | None = None,
    **_unused: object,
) -> dict[str, Any]:
    return paging.connection(select(info.context, root, filters, order), first, after)


def select(known: Context, project: ProjectRow, document: str | None, order: str | None = None) -> Sequence[RunRow]:
    """The project's runs that match a filter, in order; what the database can decide is left to it."""
    wanted, newest_first = filters.parse(document), filters.creation(order)
    matches, part = filters.matcher(wanted), filters.narrow(wanted, COLUMNS)
    if part.whole and newest_first is not None:
        return known.hub.listing.runs(project.id, part.allowed, newest_first)
    if (project.id, document) not in known.selected:
        found = _narrowed(known, project, part.allowed)
        known.selected[project.id, document] = [run for run in found if matches(run)]
    return filters.order(known.selected[project.id, document], order)


def _narrowed(known: Context, project: ProjectRow, allowed: Mapping[str, Sequence[str]]) -> Sequence[RunRow]:
    """Runs with the values allowed, and maybe others; a sweep's are kept in memory, and each of its trials asks."""
    sweeps = allowed.get("sweep", ())
    sweep = known.hub.records.sweep(project.entity, project.name, sweeps[0]) if len(sweeps) == 1 else None
    return known.hub.listing.runs(project.id, allowed) if sweep is None else known.hub.listing.sweep_runs(sweep.id)


def _run_count(root: ProjectRow, info: Info, filters: str | None = None) -> int:
    return len(select(info.context, root, filters))


def _run(root: ProjectRow, info: Info, name: str, **_unused: object) -> RunRow | None:
    return info.context.hub.records.run(root.entity, root.name, name)


def _sweep(root: ProjectRow, info: Info, sweepName: str) -> SweepRow | None:  # noqa: N803
    return info.context.hub.records.sweep(root.entity, root.name, sweepName)


def _sweeps(
    root: ProjectRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    filters: str | None = None,
) -> dict[str, Any]:
    return paging.connection(_select_sweeps(info.context, root, filters), first, after)


def _select_sweeps(known: Context, project: ProjectRow, document: str | None) -> list[SweepRow]:
    matches = filters.matcher(filters.parse(document), _sweep_column)
    return [sweep for sweep in known.hub.records.sweeps(project.entity, project.name) if matches(sweep)]


def _sweep_column(sweep: SweepRow, name: str) -> Any:
    """What sweeps are selected by: name, state, display_name, method, description, user, created_at, updated_at."""
    column = filters.snake(name)
    if column == "display_name":
        return sweep.display_name or sweep.config.get("name")
    return sweep.config.get("method") if column == "method" else getattr(sweep, column, None)


RESOLVERS: Resolvers = {
    "Query": {
        "viewer": _viewer,
        "users": _users,
        "entity": _entity,
        "organization": lambda _root, _info, name: None,
        "serverInfo": _server_info,
        "models": _models,
        "model": _project,
        "project": _project,
    },
    "Mutation": {"upsertModel": _upsert_model},
    "User": {
        "id": lambda user, _info: encode("User", user.id),
        "name": lambda user, _info: user.username,
        "email": lambda user, _info: f"{user.username}@localhost",
        "flags": lambda _user, _info: "{}",
        "entity": lambda user, _info: user.username,
        "teams": lambda _user, _info: paging.everything([]),
        "apiKeys": lambda _user, _info: paging.everything([]),
    },
    "Project": {
        "id": lambda project, _info: encode("Project", project.id),
        "internalId": lambda project, _info: project.id,
        "entityName": lambda project, _info: project.entity,
        "entity": lambda project, _info: entity(project.entity),
        "readOnly": lambda _project, _info: False,
        "isBenchmark": lambda _project, _info: False,
        "access": lambda _project, _info: "PRIVATE",
        "user": _viewer,
        "run": _run,
        "bucket": _run,
        "runs": _project_runs,
        "runCount": _run_count,
        "sweep": _sweep,
        "sweeps": _sweeps,
        "allViews": lambda _project, _info, **_page: paging.connection([]),
        "totalSweeps": lambda project, info: len(info.context.hub.records.sweeps(project.entity, project.name)),
    },
}
