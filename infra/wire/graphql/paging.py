"""Relay-style pages over a list: edges with cursors, and whether there is more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunefleet.infra.hub.store.errors import Invalid

DEFAULT_PAGE = 50
MAX_PAGE = 1000


def connection(rows: Sequence[Any], first: int | None = None, after: str | None = None) -> dict[str, Any]:
    """Up to `first` rows after the cursor `after`. Raises `Invalid` for a cursor that was not handed out."""
    start = _position(after)
    size = min(DEFAULT_PAGE if first is None else max(0, first), MAX_PAGE)
    shown = rows[start : start + size]
    edges = [{"node": row, "cursor": str(number)} for number, row in enumerate(shown, start + 1)]
    more = start + len(shown) < len(rows)
    return {"edges": edges, "pageInfo": {"hasNextPage": more, "endCursor": edges[-1]["cursor"] if edges else after}}


def everything(rows: Sequence[Any]) -> dict[str, Any]:
    """All rows at once, for lists that the client does not page."""
    edges = [{"node": row, "cursor": str(number)} for number, row in enumerate(rows, 1)]
    return {"edges": edges, "pageInfo": {"hasNextPage": False, "endCursor": edges[-1]["cursor"] if edges else None}}


def _position(cursor: str | None) -> int:
    if not cursor:
        return 0
    if not cursor.isdecimal():
        raise Invalid(f"cursor: got {cursor[:40]!r}; use one that the server handed out")
    return int(cursor)
