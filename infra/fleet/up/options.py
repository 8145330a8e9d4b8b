"""The options of `prunefleet up`: a new one is a field here and a `Setting` of the same name."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from prunefleet.infra.settings import BY_NAME, whole
from prunefleet.objective.errors import BadInput

LAST_PORT = 65535
_READ: Mapping[object, Callable[[str, Any], object]] = {
    int: lambda name, value: whole(BY_NAME[name].flag, str(value)),
    Path: lambda name, value: Path(value),
}


@dataclass(frozen=True)
class Options:
    """What the user asked for on the command line. Raises `BadInput` for a number of agents or a port that cannot be.

    The fields after `sweep_file` are the command's settings, in the order of its help.
    """

    sweep_file: Path
    agents: int
    until_done: bool
    data: Path
    host: str
    port: int
    project: str
    answer: Path

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise BadInput("--agents", self.agents, "give at least 1")
        if self.port > LAST_PORT:
            raise BadInput("--port", self.port, f"give a port up to {LAST_PORT}, or 0 for a free one")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Self:
        """Read each field from the argument of its name. Raises `BadInput` for a number that is none."""
        values = {each.name: getattr(args, each.name) for each in fields(cls)}
        readers = {each.name: _READ.get(each.type, lambda name, value: value) for each in fields(cls)}
        return cls(**{name: readers[name](name, value) for name, value in values.items()})


SETTINGS = tuple(each.name for each in fields(Options) if each.name != "sweep_file")
