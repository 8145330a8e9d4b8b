"""`prunefleet join`: make this host work for a sweep."""

import argparse
import os
import sys

from prunefleet.infra.commands.command import Command
from prunefleet.infra.settings import NO_REMOTE_CODE


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.host_join import UNWELL, Unwell, join

    if args.no_remote_code:
        os.environ[NO_REMOTE_CODE] = "1"  # kept with what else its agents need
    try:
        return join(args.url, args.sweep, args.name, args.token)
    except Unwell as error:
        print(f"prunefleet: {error}", file=sys.stderr)
        return UNWELL


COMMAND = Command(
    "join",
    "make this host work for a sweep: check it, keep its key, and keep its agents running, also after a reboot",
    ("token", "name", "no_remote_code"),
    _run,
    words=("url", "sweep"),
)
