"""`prunefleet hub users`: who may use a hub."""

import argparse

from prunefleet.infra.commands.command import Command, word_of
from prunefleet.infra.commands.hub.administrate import administrate


def _run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return administrate(args, "users.list")
    word = word_of(args, "NAME", ("list", "add", "remove"))
    return administrate(args, f"users.{args.action}", username=word, admin=args.admin)


COMMAND = Command(
    "users",
    "list users, add one (prints the key, once), or remove one: the keys end at once, the runs stay",
    ("hub_data", "admin"),
    _run,
    words=("action", "word"),
)
