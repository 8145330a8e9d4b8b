"""Who may do what with whose projects: a user with their own, an administrator with all. Nobody else decides this.

To everybody else a thing is not there: a refusal reads the same as for something that never was, so it tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from prunefleet.infra.hub.store.database import Connection, Store, scalar
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.rows import UserRow

_IN_COLLECTION = "JOIN project ON project.id = collection.project_id WHERE"
_ENTITY_OF = {
    "Run": "run JOIN project ON project.id = run.project_id WHERE run.id = :id",
    "Sweep": "sweep JOIN project ON project.id = sweep.project_id WHERE sweep.id = :id",
    "Agent": (
        "agent JOIN sweep ON sweep.id = agent.sweep_id JOIN project ON project.id = sweep.project_id "
        "WHERE agent.id = :id"
    ),
    "Project": "project WHERE project.id = :id",
    "Artifact": (
        f"artifact JOIN collection ON collection.id = artifact.collection_id {_IN_COLLECTION} artifact.id = :id"
    ),
    "ArtifactSequence": f"collection {_IN_COLLECTION} collection.id = :id AND collection.kind = 'ArtifactSequence'",
    "ArtifactPortfolio": f"collection {_IN_COLLECTION} collection.id = :id AND collection.kind = 'ArtifactPortfolio'",
    "RunFile": (
        "run_file JOIN run ON run.id = run_file.run_id JOIN project ON project.id = run.project_id "
        "WHERE run_file.id = :id"
    ),
}
_ENTITY_OF["ArtifactManifest"] = _ENTITY_OF["Artifact"]
KINDS = tuple(_ENTITY_OF)


class Owned(Protocol):
    """A row that knows its entity."""

    @property
    def entity(self) -> str:
        """Whose it is."""
        ...


O = TypeVar("O", bound=Owned)  # noqa: E741


def may(user: UserRow, entity: str) -> bool:
    """Whether the user may see and change what belongs to that entity."""
    return user.admin or user.username == entity


def seen(user: UserRow, rows: Iterable[O]) -> list[O]:
    """The rows that the user may see."""
    return [row for row in rows if may(user, row.entity)]


def entity_for(user: UserRow, asked: str | None) -> str:
    """The entity asked for; where none is (null, or "" when an offline run is synced), the user's own.

    Raises `Missing` for another's, whether there is such a one or not.
    """
    entity = asked or user.username
    if not may(user, entity):
        raise Missing(
            f"entity: got {entity[:80]!r}, which is not here for you; there are no teams: "
            f"set WANDB_ENTITY to {user.username!r}, or unset it"
        )
    return entity


class Access:
    """Looks up whose a thing is that a client names by its id."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, user: UserRow, kind: str, number: int) -> None:
        """Raises `Missing` where there is no such thing, or where it is another's."""
        if not user.admin and not self.may(user, kind, number):
            raise Missing(f"{_WORDS.get(kind, kind.lower())}: it is not here; it may have been deleted")

    def may(self, user: UserRow, kind: str, number: int) -> bool:
        """Whether there is such a thing and the user may see it."""
        with self._store.read() as connection:
            entity = entity_of(connection, kind, number)
        return entity is not None and may(user, entity)


_WORDS = {"ArtifactManifest": "artifact", "ArtifactSequence": "artifact collection", "RunFile": "file"}
_WORDS["ArtifactPortfolio"] = _WORDS["ArtifactSequence"]


def entity_of(connection: Connection, kind: str, number: int) -> str | None:
    """Whose the thing with that id is; None where there is none."""
    found = scalar(connection, f"SELECT project.entity FROM {_ENTITY_OF[kind]}", id=number)  # noqa: S608 - ours
    return None if found is None else str(found)
