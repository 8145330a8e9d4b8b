"""The options of `prunefleet up`: a new one is a field here and a `Setting` of the same name."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from prunefleet.infra.settings import BY_NAME, whole
from prunefleet.objective.errors import BadInput

LAST_PORT = 65535


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
    mixed: int

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise BadInput("--agents", self.agents, "give at least 1")
        if self.port > LAST_PORT:
            raise BadInput("--port", self.port, f"give a port up to {LAST_PORT}, or 0 for a free one")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Self:
        """Read each field from the argument of its name. Raises `BadInput` for a number that is none."""
        return cls(**{each.name: _read(each.name, each.type, getattr(args, each.name)) for each in fields(cls)})


def _read(name: str, kind: object, value: Any) -> Any:
    if kind is int:
        return whole(BY_NAME[name].flag, str(value))
    return Path(value) if kind is Path else value


SETTINGS = tuple(each.name for each in fields(Options) if each.name != "sweep_file")
