"""`prunefleet hub check`: what of a hub is damaged or missing."""

import argparse

from prunefleet.infra.commands.command import Command
from prunefleet.infra.commands.hub.administrate import administrate


def _run(args: argparse.Namespace) -> int:
    return administrate(args, "check")


COMMAND = Command("check", "read the database and every file, and tell what is damaged or missing", ("hub_data",), _run)
