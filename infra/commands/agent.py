"""`prunefleet agent`: keep this host's agents of a sweep running."""

import argparse

from prunefleet.infra.commands.command import Command


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.keep import keep

    return keep(args.joined)


COMMAND = Command(
    "agent",
    "keep one `wandb agent` per GPU running for a sweep, or for what was joined as NAME, until told to stop",
    (),
    _run,
    words=("joined",),
)
