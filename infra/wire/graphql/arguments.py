"""Inputs that may carry fields of tomorrow's client: scalars in the schema, checked field by field here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.wire.graphql.execute import Info
from prunefleet.infra.wire.graphql.lookups import owned

_HALF = re.compile(r"[\ud800-\udfff]")  # JSON can hold it, the database cannot
_WHOLE = re.compile(r"-?[0-9]{1,18}")  # what the database can hold


class Given:
    """An input object. Each reader raises `Invalid` naming the field where the value is of another kind."""

    def __init__(self, value: object, name: str = "input", info: Info | None = None) -> None:
        if not isinstance(value, Mapping):
            raise Invalid(f"{name}: got {type(value).__name__}; send an object")
        self._values: Mapping[str, Any] = value
        self._info = info

    def maybe(self, field: str) -> str | None:
        """A text, or None."""
        value = self._values.get(field)
        if value is not None and not isinstance(value, str):
            raise Invalid(f"{field}: got {type(value).__name__}; send a text")
        if value is not None and _HALF.search(value):
            raise Invalid(f"{field}: holds half of a surrogate pair, which is no text; send UTF-8")
        return value

    def text(self, field: str) -> str:
        """A text; "" where there is none."""
        return self.maybe(field) or ""

    def texts(self, field: str) -> list[str]:
        """A list of texts."""
        return [Given({field: value}).text(field) for value in self._list(field)]

    def whole(self, field: str) -> int | None:
        """A whole number, which may come as text, or None."""
        value = self._values.get(field)
        if value is not None and not _WHOLE.fullmatch(str(value)):
            raise Invalid(f"{field}: got {str(value)[:40]!r}; send a whole number")
        return None if value is None else int(value)

    def flag(self, field: str) -> bool:
        """Whether it is so; missing means no."""
        return self._values.get(field) is True

    def objects(self, field: str) -> list[Given]:
        """A list of objects."""
        return [Given(value, field, self._info) for value in self._list(field)]

    def id(self, kind: str, field: str) -> int:
        """The number in an id of that kind. Raises `Missing` for what is none, is gone, or is another user's."""
        assert self._info is not None, "an id means nothing without the user who sends it"
        return owned(self._info, kind, self.text(field))

    def maybe_id(self, kind: str, field: str) -> int | None:
        """The number in an id of that kind, or None where there is no such field."""
        return self.id(kind, field) if self.text(field) else None

    def _list(self, field: str) -> list[Any]:
        value = self._values.get(field)
        if value is not None and not isinstance(value, list):
            raise Invalid(f"{field}: got {type(value).__name__}; send a list")
        return value or []


def taking(resolve: Callable[[Info, Given], Any]) -> Callable[..., Any]:
    """A resolver of a mutation from a function of its input."""
    return lambda _root, info, input: resolve(info, Given(input, info=info))
