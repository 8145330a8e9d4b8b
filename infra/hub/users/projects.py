"""Finding and making projects; names that an address can carry."""

from __future__ import annotations

import re

from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, insert
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.rows import ProjectRow, UserRow
from prunefleet.infra.hub.users.access import entity_for

DEFAULT_PROJECT = "uncategorized"
_PROJECT_NAME = re.compile(r"[^/\\#?%:\x00-\x1f\x7f]{1,128}")
_RUN_NAME = re.compile(r"[^/\\#?%:'\x00-\x1f\x7f]{1,128}")


def ensure(connection: Connection, user: UserRow, entity: str | None, name: str | None, now: float) -> ProjectRow:
    """The project, made if it is new. Raises `Missing` for an unknown entity, `Invalid` for an impossible name."""
    entity, name = entity_for(user, entity), name or DEFAULT_PROJECT
    found = statements.project(connection, entity, name)
    if found is None:
        _check(connection, entity, name)
        insert(connection, "project", entity=entity, name=name, user_id=user.id, created_at=now)
        found = statements.project(connection, entity, name)
    assert found is not None
    return found


def check_run_name(name: str) -> None:
    """Raises `Invalid` for a run id that an address or a folder could not carry."""
    if not _RUN_NAME.fullmatch(name) or name in (".", ".."):
        raise Invalid(
            f"run id: got {name[:140]!r}; use 1 to 128 characters without / \\ # ? % : ' or control characters"
        )


def _check(connection: Connection, entity: str, name: str) -> None:
    if statements.user_named(connection, entity) is None:
        known = ", ".join(user.username for user in statements.users(connection)[:5])
        raise Missing(f"entity: got {entity[:80]!r}, which is not here; set WANDB_ENTITY to one of: {known}")
    if not _PROJECT_NAME.fullmatch(name) or name in (".", ".."):
        raise Invalid(
            f"project: got {name[:140]!r}; use 1 to 128 characters without / \\ # ? % : or control characters"
        )
