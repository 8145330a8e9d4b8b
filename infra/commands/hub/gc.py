"""`prunefleet hub gc`: remove what a hub no longer needs."""

import argparse

from prunefleet.infra.commands.command import Command
from prunefleet.infra.commands.hub.administrate import administrate
from prunefleet.infra.settings import whole


def _run(args: argparse.Namespace) -> int:
    older = None if args.runs_older_than is None else whole("--runs-older-than", str(args.runs_older_than))
    days = whole("--abandoned-after", str(args.abandoned_after))
    return administrate(args, "gc", dry_run=args.dry_run, abandoned_after=days, runs_older_than=older)


COMMAND = Command(
    "gc",
    "remove files that nothing refers to, artifacts that were never finished, and old runs where that is asked",
    ("hub_data", "dry_run", "abandoned_after", "runs_older_than"),
    _run,
)
