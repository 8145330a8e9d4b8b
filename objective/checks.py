"""The checks that values of this room share. Each returns the value or raises :class:`BadInput` with a remedy."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from prunefleet.objective.errors import BadInput

NAME = re.compile(r"[_a-zA-Z0-9]+")
NUMBER = re.compile(r"([+-]?\d+(?:[.,]\d+)?|[+-]?\.\d+)([eE][+-]?\d+)?\s*(%?)")
SHORTEST = 3  # letters of a word that may stand for a longer one it begins


def near(got: object, known: Iterable[str]) -> str | None:
    """Return the word among ``known`` that ``got`` is most likely meant to be; None where none is like it.

    Case, spaces, dashes and underscores do not count; the beginning of a word stands for it: ``arch``, ``imagefolder``.
    """
    words = {_folded(each): str(each) for each in sorted(known, key=len, reverse=True)}  # of two the shorter is kept
    wanted = _folded(got)
    begun = [each for each in words if len(wanted) >= SHORTEST and each.startswith(wanted)]
    close = begun or difflib.get_close_matches(wanted, words, n=1)
    return words[min(close, key=len)] if close else None


def choose(got: object, known: Iterable[str], otherwise: str = "use one of") -> str:
    """Return the remedy for a word that is not ``known``: the one it is like, else ``otherwise`` and all of them."""
    words = list(known)
    like = near(got, words)
    return f"did you mean {like!r}?" if like else f"{otherwise} {', '.join(words)}"


def _folded(word: object) -> str:
    return re.sub(r"[\s_-]", "", str(word).lower())


def number(field: str, got: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``got`` as a float if it is a finite number in [low, high]."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not math.isfinite(got):
        raise BadInput(field, got, as_number(got) or "give a finite number")
    if not low <= got <= high:
        raise BadInput(field, got, f"give a number {_between(low, high)}")
    return float(got)


def as_number(got: object) -> str | None:
    """Return the remedy for a text that stands for a number: how YAML has that number; None for anything else."""
    found = NUMBER.fullmatch(got.strip()) if isinstance(got, str) else None
    if not found:
        return None
    digits, exponent, percent = found[1].replace(",", "."), found[2] or "", found[3]
    if percent:
        return f"write {float(digits + exponent) / 100:.12g}"
    if not exponent:
        return f"write {digits}, without quotes"
    point, sign = "" if "." in digits else ".0", "" if exponent[1] in "+-" else "+"
    written = f"{digits}{point}{exponent[0]}{sign}{exponent[1:]}"
    if written == found[0]:
        return f"write {written}, without quotes"
    return f"YAML reads {found[0]} as text; write {written}"


def positive(field: str, got: object) -> float:
    """Return ``got`` as a float if it is a finite number above 0."""
    if number(field, got) <= 0:
        raise BadInput(field, got, "give a number above 0")
    return number(field, got)


def whole(field: str, got: object, low: int = 0) -> int:
    """Return ``got`` if it is an integer of at least ``low``."""
    if isinstance(got, bool) or not isinstance(got, int) or got < low:
        raise BadInput(field, got, as_number(got) or f"give a whole number of at least {low}")
    return got


def truth(field: str, got: object) -> bool:
    """Return ``got`` if it is true or false."""
    if not isinstance(got, bool):
        raise BadInput(field, got, "write true or false")
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
        raise BadInput(field, got, choose(got, known, "choose one of"))
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
