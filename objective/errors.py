"""The one error that a user's own input raises."""

from __future__ import annotations

LONGEST_VALUE = 120


class BadInput(ValueError):
    """A value that cannot be right, told in one line: the field, the value got and the remedy.

    Commands print the line and exit with code 2. The three parts stay apart as ``field``, ``got`` and ``remedy``.
    """

    def __init__(self, field: str, got: object, remedy: str) -> None:
        super().__init__(field, got, remedy)
        self.field = field
        self.got = got
        self.remedy = remedy

    def __str__(self) -> str:
        shown = repr(self.got)
        if len(shown) > LONGEST_VALUE:
            shown = shown[: LONGEST_VALUE - 1] + "…"
        return " ".join(f"{self.field}: got {shown}; {self.remedy}".split())
