"""`prunefleet hub restore`: a hub from its backup."""

import argparse
from pathlib import Path

from prunefleet.infra.commands.command import Command
from prunefleet.infra.commands.hub.administrate import shown


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra import hub_admin

    return shown(lambda: hub_admin.restored(Path(args.source), Path(args.data)))


COMMAND = Command(
    "restore",
    "make the empty folder --data the hub that was backed up in SOURCE",
    ("hub_data",),
    _run,
    words=("source",),
)
