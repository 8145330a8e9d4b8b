"""`prunefleet invite`: the line that another host joins a sweep with."""

import argparse

from prunefleet.infra.commands.command import Command
from prunefleet.infra.settings import whole


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.host_join import invite

    print("\n".join(invite(args.of_sweep, whole("--minutes", str(args.minutes)))))
    return 0


COMMAND = Command(
    "invite",
    "print the line that another host joins a sweep of the hub with; its token is good once, for some minutes",
    ("minutes",),
    _run,
    words=("of_sweep",),
)
