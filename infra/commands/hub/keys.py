"""`prunefleet hub keys`: the keys that users sign in with."""

import argparse

from prunefleet.infra.commands.command import Command, word_of
from prunefleet.infra.commands.hub.administrate import administrate


def _run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return administrate(args, "keys.list", username=args.word or None)
    word = word_of(args, "USER" if args.action == "add" else "KEY", ("list", "add", "revoke"))
    return administrate(args, f"keys.{args.action}", **{"username" if args.action == "add" else "id": word})


COMMAND = Command(
    "keys",
    "list keys with their last use, add one to a user (prints it, once), or revoke one, with effect at once",
    ("hub_data",),
    _run,
    words=("action", "word"),
)
