"""`prunefleet hub backup`: a checked copy of a hub."""

import argparse
from pathlib import Path

from prunefleet.infra.commands.command import Command
from prunefleet.infra.commands.hub.administrate import administrate


def _run(args: argparse.Namespace) -> int:
    return administrate(args, "backup", target=str(Path(args.target).absolute()))


COMMAND = Command(
    "backup",
    "copy a hub to a new folder TARGET while it serves or not, and check the copy",
    ("hub_data",),
    _run,
    words=("target",),
)
