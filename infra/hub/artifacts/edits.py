"""What is changed on artifacts once they are there: aliases, tags, words about them, links, and their end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from prunefleet.infra.hub.artifacts import log
from prunefleet.infra.hub.artifacts.names import check_word
from prunefleet.infra.hub.store import files
from prunefleet.infra.hub.store.database import Connection, execute, scalar, update
from prunefleet.infra.hub.store.errors import Conflict, Missing
from prunefleet.infra.hub.store.file_rows import ArtifactRow, CollectionKind, CollectionRow, MembershipRow
from prunefleet.infra.hub.store.rows import ProjectRow, UserRow
from prunefleet.infra.hub.users import projects

NO_TTL = -2  # W&B's number for "keep for ever"


@dataclass(frozen=True)
class ArtifactChange:
    """What to change on a version; None leaves what is stored. `metadata` is JSON."""

    description: str | None = None
    metadata: str | None = None
    ttl_seconds: int | None = None
    tags_added: Sequence[str] = ()
    tags_removed: Sequence[str] = ()


def revise(connection: Connection, artifact_id: int, change: ArtifactChange, now: float) -> ArtifactRow:
    """Change what is known of a version. Raises `Missing`."""
    found = log.reread(connection, artifact_id)
    said = {"description": change.description, "metadata": change.metadata, "ttl_seconds": change.ttl_seconds}
    columns = {key: value for key, value in said.items() if value is not None}
    tags = json.dumps(_tags(found.tags, change.tags_added, change.tags_removed))
    update(connection, "artifact", artifact_id, tags=tags, updated_at=now, **columns)
    return log.reread(connection, artifact_id)


def delete(connection: Connection, artifact_id: int, *, with_aliases: bool) -> ArtifactRow:
    """Forget a version and its files; its number is not given again. Raises `Conflict` where an alias points to it."""
    found = log.reread(connection, artifact_id)
    names = [alias.name for alias in files.aliases(connection, found.collection, artifact_id)]
    if names and not with_aliases:
        raise Conflict(f"artifact: aliases point to it ({', '.join(names)}); delete it with delete_aliases=True")
    execute(connection, "DELETE FROM artifact WHERE id = :id", id=artifact_id)
    return found


def delete_outputs(connection: Connection, run_id: int) -> None:
    """Forget every artifact that a run has logged or begun to log."""
    execute(connection, "DELETE FROM artifact WHERE run_id = :run_id", run_id=run_id)


def add_aliases(connection: Connection, artifact_id: int, target: CollectionRow, names: Sequence[str]) -> None:
    """Let names of a collection point to this artifact. Raises `Missing` where it is no version of it."""
    log.name_version(connection, _membership(connection, artifact_id, target), names)


def delete_aliases(connection: Connection, artifact_id: int, target: CollectionRow, names: Sequence[str]) -> None:
    """Take names from this artifact; names of other versions stay."""
    found = _membership(connection, artifact_id, target)
    for name in names:
        execute(connection, "DELETE FROM alias WHERE membership_id = :m AND name = :name", m=found.id, name=name)


def link(
    connection: Connection, user: UserRow, artifact_id: int, place: tuple[str | None, str | None, str], now: float
) -> MembershipRow:
    """Make an artifact a version of the portfolio at `place` (entity, project, name); a second link is the first one.

    Raises `Conflict` where that name holds logged artifacts, or those of another type.
    """
    found = log.reread(connection, artifact_id)
    project = projects.ensure(connection, user, place[0], place[1], now)
    kind = CollectionKind.PORTFOLIO
    target = log.ensure_collection(connection, project, place[2], kind, found.collection.type, now)
    held = [m for m in files.memberships(connection, target) if m.artifact_id == artifact_id]
    return held[0] if held else log.add_version(connection, target, artifact_id, now)


def unlink(connection: Connection, artifact_id: int, portfolio_id: int) -> None:
    """Take an artifact out of a portfolio. Raises `Missing`, or `Conflict` for the collection it was logged to."""
    target = reread_collection(connection, portfolio_id)
    if target.kind is not CollectionKind.PORTFOLIO:
        raise Conflict(f"artifact: it was logged to {target.name!r}, not linked; delete it instead")
    found = _membership(connection, artifact_id, target)
    execute(connection, "DELETE FROM membership WHERE id = :id", id=found.id)


def revise_collection(
    connection: Connection, collection_id: int, name: str | None, description: str | None, now: float
) -> CollectionRow:
    """Rename or describe a collection. Raises `Conflict` for a name that is taken."""
    found = reread_collection(connection, collection_id)
    if name is not None and name != found.name:
        _check_free(connection, found.project, check_word("name", name))
    said = {"name": name, "description": description}
    columns = {key: value for key, value in said.items() if value is not None}
    update(connection, "collection", collection_id, updated_at=now, **columns)
    return reread_collection(connection, collection_id)


def retype_collection(connection: Connection, collection_id: int, type_name: str, now: float) -> CollectionRow:
    """Give a collection another type."""
    reread_collection(connection, collection_id)
    update(connection, "collection", collection_id, type=check_word("type", type_name), updated_at=now)
    return reread_collection(connection, collection_id)


def tag_collection(
    connection: Connection, target: CollectionRow, added: Sequence[str], removed: Sequence[str], now: float
) -> CollectionRow:
    """Add tags to a collection, or take them away."""
    tags = json.dumps(_tags(target.tags, added, removed))
    update(connection, "collection", target.id, tags=tags, updated_at=now)
    return reread_collection(connection, target.id)


def delete_collection(connection: Connection, collection_id: int) -> CollectionRow:
    """Forget a collection with the versions logged to it; linked ones stay where they were logged."""
    found = reread_collection(connection, collection_id)
    execute(connection, "DELETE FROM collection WHERE id = :id", id=collection_id)
    return found


def reread_collection(connection: Connection, collection_id: int) -> CollectionRow:
    """The collection as it is now. Raises `Missing`."""
    found = files.collection(connection, collection_id)
    if found is None:
        raise Missing("artifact collection: it is not here; it may have been deleted")
    return found


def _membership(connection: Connection, artifact_id: int, target: CollectionRow) -> MembershipRow:
    found = [m for m in files.memberships_of(connection, artifact_id) if m.collection.id == target.id]
    if not found:
        raise Missing(f"artifact: it is no version of {target.name!r}")
    return found[0]


def _check_free(connection: Connection, project: ProjectRow, name: str) -> None:
    if scalar(connection, "SELECT 1 FROM collection WHERE project_id = :p AND name = :name", p=project.id, name=name):
        raise Conflict(f"artifact name: {name!r} is taken in this project; choose another")


def _tags(held: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> list[str]:
    return [tag for tag in dict.fromkeys([*held, *added]) if tag not in set(removed)]
