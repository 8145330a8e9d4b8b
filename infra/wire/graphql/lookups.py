"""The doors of the wire: every id and every name that a client sends leads through here, with the asking user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.file_rows import CollectionKind
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, UserRow
from prunefleet.infra.hub.users import access
from prunefleet.infra.hub.users.access import Owned
from prunefleet.infra.hub.users.projects import DEFAULT_PROJECT
from prunefleet.infra.wire.graphql.execute import Info
from prunefleet.infra.wire.graphql.ids import decode

O = TypeVar("O", bound=Owned)  # noqa: E741


def owned(info: Info, kind: str, text: str) -> int:
    """The number in an id of that kind. Raises `Missing` for what is none, is gone, or is another's."""
    return own_number(info.context.hub, info.context.user, kind, text)


def own_number(hub: Hub, user: UserRow, kind: str, text: str) -> int:
    """As `owned`, for addresses outside GraphQL."""
    number = decode(kind, text)
    hub.access.check(user, kind, number)
    return number


def number_of_gone(kind: str, text: str) -> int:
    """The number in an id of what is not here any more, to name it once again. Raises `Missing` for no id."""
    return decode(kind, text)


def own_files(info: Info, texts: Sequence[str]) -> list[int]:
    """The numbers in ids of runs' files, without those that are gone or another's."""
    numbers = [decode("RunFile", text) for text in texts]
    user, known = info.context.user, info.context.hub.access
    return [number for number in numbers if known.may(user, "RunFile", number)]


def collection_id(info: Info, text: str) -> int:
    """The number in a collection's id, of either kind. Raises `Missing`."""
    try:
        return owned(info, CollectionKind.SEQUENCE.value, text)
    except Missing:
        return owned(info, CollectionKind.PORTFOLIO.value, text)


def artifact_of_client(info: Info, client_id: str) -> int | None:
    """The artifact that a client knows under this name of its own, unless it is another's."""
    known = info.context
    found = known.hub.artifacts.id_of_client(client_id)
    return found if found is not None and known.hub.access.may(known.user, "Artifact", found) else None


def find_project(info: Info, entity: str | None, name: str | None) -> ProjectRow | None:
    """The project asked for; the user's own entity and W&B's default project where none is named."""
    known = info.context
    entity = entity or known.user.username
    return known.hub.records.project(entity, name or DEFAULT_PROJECT) if access.may(known.user, entity) else None


def find_projects(info: Info, entity: str | None) -> list[ProjectRow]:
    """An entity's projects, the user's own where none is named; none of another's."""
    return seen(info, info.context.hub.records.projects(entity or info.context.user.username))


def find_run(info: Info, entity: str | None, project: str | None, name: str) -> RunRow:
    """The run of that name. Raises `Missing`."""
    known = info.context
    entity = entity or known.user.username
    found = known.hub.records.run(entity, project or DEFAULT_PROJECT, name) if access.may(known.user, entity) else None
    if found is None:
        raise Missing(f"run: got {name[:80]!r}, which is not in {entity}/{project}")
    return found


def seen(info: Info, rows: Sequence[O]) -> list[O]:
    """Of rows that may lead out of one project (who used an artifact, where it is linked), those the user may see."""
    return access.seen(info.context.user, rows)
