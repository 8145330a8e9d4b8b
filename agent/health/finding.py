"""What a look at a host or a server found."""

from dataclasses import dataclass

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain

OK, WARNING, PROBLEM = LEVELS = ("ok", "warning", "problem")
"""A warning makes figures less certain or trials slower, a problem makes them fail."""


@dataclass(frozen=True)
class Finding(Plain):
    """One thing that was looked at: what is so, and unless all is well why that is bad and the remedy."""

    name: str
    level: str
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        checks.one_of("finding.level", self.level, LEVELS)
        if bool(self.remedy) == (self.level == OK):
            raise BadInput(
                "finding.remedy", self.remedy, "give one with a warning or a problem, and none where all is well"
            )

    def __str__(self) -> str:
        line = f"{_MARKS[self.level]} {self.name}: {self.found}"
        return f"{line}: {self.remedy}" if self.remedy else line


_MARKS = {OK: "ok     ", WARNING: "warning", PROBLEM: "problem"}


def graded(name: str, found: str, *grades: tuple[bool, str, str]) -> Finding:
    """A finding of the first level that holds, each a (holds, level, remedy); else all is well."""
    for holds, level, remedy in grades:
        if holds:
            return Finding(name, level, found, remedy)
    return Finding(name, OK, found)
