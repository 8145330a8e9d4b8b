"""How much an operation asks for, told from its text before it is run: how deep, how many fields, how many values.

Works on parsed documents without importing their library. Aliases count as fields, fragments where they are spread,
and what stands below a list counts once for each row that the list may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.wire.graphql.paging import DEFAULT_PAGE, MAX_PAGE

MAX_DEPTH = 25  # the client's deepest operation has 15
MAX_FIELDS = 500  # its longest has 84
MAX_VALUES = 250_000  # its heaviest has 80,000, with pages of 1000 rows
MAX_ITEMS = 20_000  # in any list of its variables
_PAGED = ("first", "last", "samples")


def check_text(document: Any) -> None:
    """Raises `Invalid` for an operation that is too deep or too long, whatever its variables say."""
    for definition in _operations(document):
        _CostWalk(_fragments(document), None).into(definition.selection_set, 1, 1)


def check_values(document: Any, variables: Mapping[str, Any]) -> None:
    """Raises `Invalid` for operations that may answer too many values at once."""
    for definition in _operations(document):
        _CostWalk(_fragments(document), variables).into(definition.selection_set, 1, 1)


def check_items(variables: object) -> None:
    """Raises `Invalid` for variables with a list that is too long, however deep it lies."""
    waiting = [variables]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list) and len(value) > MAX_ITEMS:
            raise Invalid(f"variables: a list has {len(value)} items, at most {MAX_ITEMS}; send it in parts")
        if isinstance(value, list | dict):
            below = value.values() if isinstance(value, dict) else value
            waiting += [each for each in below if isinstance(each, list | dict)]


class _CostWalk:
    def __init__(self, fragments: Mapping[str, Any], variables: Mapping[str, Any] | None) -> None:
        self._fragments = fragments
        self._variables = variables
        self._fields = 0
        self._values = 0

    def into(self, selections: Any, depth: int, times: int) -> None:
        if depth > MAX_DEPTH:
            raise Invalid(f"query: nested deeper than {MAX_DEPTH}; ask in several queries")
        for selection in selections.selections:
            self._count(times)
            below, rows = self._below(selection)
            if below is not None:
                self.into(below, depth + 1, times * rows)

    def _below(self, selection: Any) -> tuple[Any, int]:
        if selection.kind == "field":
            return selection.selection_set, self._rows(selection)
        if selection.kind == "fragment_spread":
            found = self._fragments.get(selection.name.value)
            return (found.selection_set if found else None), 1
        return selection.selection_set, 1

    def _count(self, times: int) -> None:
        self._fields += 1
        self._values += times
        if self._fields > MAX_FIELDS:
            raise Invalid(f"query: more than {MAX_FIELDS} fields; ask for fewer, or in several queries")
        if self._variables is not None and self._values > MAX_VALUES:
            raise Invalid(f"query: may answer more than {MAX_VALUES} values; ask for smaller pages or fewer fields")

    def _rows(self, field: Any) -> int:
        """How many rows a field may have, as far as its arguments tell."""
        if self._variables is None:
            return 1
        for argument in field.arguments or ():
            if argument.name.value in _PAGED:
                return self._number(argument.value)
        return 1

    def _number(self, value: Any) -> int:
        given: object = getattr(value, "value", None)
        if value.kind == "variable" and self._variables is not None:
            given = self._variables.get(value.name.value)
        try:
            return min(max(int(str(given)), 1), MAX_PAGE)
        except ValueError:
            return DEFAULT_PAGE


def _operations(document: Any) -> list[Any]:
    return [each for each in document.definitions if each.kind == "operation_definition"]


def _fragments(document: Any) -> Mapping[str, Any]:
    return {each.name.value: each for each in document.definitions if each.kind == "fragment_definition"}
