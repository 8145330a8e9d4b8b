"""`prunefleet device`: devices elsewhere that measure for a project."""

import argparse
import sys

from prunefleet.infra.commands.command import Command, word_of


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet import device_list

    if args.action == "list":
        lines = device_list.listed(args.project)
    else:
        lines = [device_list.add(word_of(args, "NAME", ("list", "add")), args.project)]
        print(device_list.how_to_start(lines[0]), file=sys.stderr)
    print("\n".join(lines) or f"{args.project} has no device yet: prunefleet device add NAME")
    return 0


COMMAND = Command(
    "device",
    "list the devices elsewhere that measure for this project, or add one and print the line to start there",
    ("project",),
    _run,
    words=("action", "word"),
)
