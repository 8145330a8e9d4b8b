"""The checks that values of this room share. Each returns the value or raises :class:`BadInput` with a remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from prunefleet.objective.errors import BadInput

NAME = re.compile(r"[_a-zA-Z0-9]+")


def number(field: str, got: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``got`` as a float if it is a finite number in [low, high]."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not math.isfinite(got):
        raise BadInput(field, got, "give a finite number")
    if not low <= got <= high:
        raise BadInput(field, got, f"give a number {_between(low, high)}")
    return float(got)


def positive(field: str, got: object) -> float:
    """Return ``got`` as a float if it is a finite number above 0."""
    if number(field, got) <= 0:
        raise BadInput(field, got, "give a number above 0")
    return number(field, got)


def whole(field: str, got: object, low: int = 0) -> int:
    """Return ``got`` if it is an integer of at least ``low``."""
    if isinstance(got, bool) or not isinstance(got, int) or got < low:
        raise BadInput(field, got, f"give a whole number of at least {low}")
    return got


def name(field: str, got: object) -> str:
    """Return ``got`` if it may name a sweep parameter: letters, digits and underscores (dots break W&B's filters)."""
    if not isinstance(got, str) or not NAME.fullmatch(got):
        raise BadInput(field, got, "give letters, digits and underscores only")
    return got


def text(field: str, got: object) -> str:
    """Return ``got`` if it is a string with something in it."""
    if not isinstance(got, str) or not got.strip():
        raise BadInput(field, got, "give a text that is not empty")
    return got


def ratio(field: str, got: object) -> float:
    """Return ``got`` as a float if it is a pruning ratio: in [0, 1)."""
    value = number(field, got)
    if not 0 <= value < 1:
        raise BadInput(field, got, "give a pruning ratio of at least 0 (keep all) and below 1")
    return value


def one_of(field: str, got: object, known: Sequence[str]) -> str:
    """Return ``got`` if it is one of the words ``known``."""
    if not isinstance(got, str) or got not in known:
        raise BadInput(field, got, f"choose one of {', '.join(known)}")
    return got


def mapping(field: str, got: object) -> Mapping[str, object]:
    """Return ``got`` if it is a mapping with text keys."""
    if not isinstance(got, Mapping) or not all(isinstance(key, str) for key in got):
        raise BadInput(field, got, "give a mapping from names to values")
    return got


def _between(low: float, high: float) -> str:
    if math.isinf(high):
        return f"of at least {low:g}"
    return f"of at most {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"
