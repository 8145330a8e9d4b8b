"""`prunefleet leave`: end this host's work for a sweep."""

import argparse

from prunefleet.infra.commands.command import Command


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.leave import leave

    return leave(args.joined)


COMMAND = Command(
    "leave",
    "end this host's work for a sweep: agents, service and key go, and what `join` made is undone",
    (),
    _run,
    words=("joined",),
)
