"""Frozen dataclasses as plain JSON values and back, exactly; a wrong document is refused by field."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from prunefleet.objective.errors import BadInput

T = TypeVar("T")


class Plain:
    """Gives a frozen dataclass ``to_json`` and ``from_json``; values are validated again when they are read."""

    def to_json(self) -> dict[str, Any]:
        """Return the value as dicts, lists, texts, numbers and None, ready for ``json.dumps``."""
        encoded = encode(self)
        assert isinstance(encoded, dict)
        return encoded

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build the value from what :meth:`to_json` returned.

        Raises:
            BadInput: a key is missing or unknown, or a value has the wrong type or range.
        """
        return decode(cls, document, cls.__name__)


def encode(value: object) -> Any:
    """Return ``value`` in plain JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [encode(entry) for entry in value]
    return value


def decode(kind: type[T], document: object, field: str) -> T:
    """Return ``document`` as a value of the dataclass ``kind``; ``field`` names it in messages."""
    if not isinstance(document, Mapping):
        raise BadInput(field, document, f"give a mapping with the fields of {kind.__name__}")
    hints = get_type_hints(kind)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key in document:
        if key not in known:
            raise BadInput(f"{field}.{key}", document[key], f"remove it; known are {', '.join(known)}")
    for key, entry in known.items():
        if key not in document and entry.default is MISSING and entry.default_factory is MISSING:
            raise BadInput(f"{field}.{key}", None, "give this field; it is missing")
    return kind(**{key: _typed(hints[key], document[key], f"{field}.{key}") for key in document})


def _typed(hint: Any, value: object, field: str) -> Any:
    """Return the plain ``value`` as the type that ``hint`` asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(a for a in arguments if a is not type(None)), value, field)
    if is_dataclass(hint):
        return decode(hint, value, field)  # type: ignore[arg-type]
    if origin is tuple:
        return _tuple(arguments, value, field)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(arguments, value, field)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value, field)
    return _scalar(hint, value, field)


def _tuple(arguments: tuple[Any, ...], value: object, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BadInput(field, value, "give a list")
    if arguments[-1] is Ellipsis:
        return tuple(_typed(arguments[0], entry, f"{field}[{place}]") for place, entry in enumerate(value))
    if len(value) != len(arguments):
        raise BadInput(field, value, f"give a list of {len(arguments)}")
    return tuple(
        _typed(a, entry, f"{field}[{place}]") for place, (a, entry) in enumerate(zip(arguments, value, strict=True))
    )


def _mapping(arguments: tuple[Any, ...], value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(field, value, "give a mapping from names to values")
    return {str(key): _typed(arguments[1], entry, f"{field}.{key}") for key, entry in value.items()}


def _member(hint: type[StrEnum], value: object, field: str) -> StrEnum:
    if value not in [member.value for member in hint]:
        raise BadInput(field, value, f"give one of {', '.join(hint)}")
    return hint(value)


def _scalar(hint: Any, value: object, field: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))):
        raise BadInput(field, value, f"give a value of type {hint.__name__}")
    return value
