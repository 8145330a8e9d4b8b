"""What a command is, and the words after its name."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

BAD_INPUT = 2
# The words after a command: what stands in its help, and what it is if left out (None: it must be given).
WORDS: Mapping[str, tuple[str, str | None]] = {
    "action": ("ACTION", "list"),
    "word": ("WORD", ""),
    "agent": ("AGENT", ""),
    "target": ("TARGET", None),
    "source": ("SOURCE", None),
    "url": ("URL", None),
    "sweep": ("SWEEP", ""),
    "of_sweep": ("SWEEP", None),
    "joined": ("NAME", ""),
}


@dataclass(frozen=True)
class Command:
    """One word after `prunefleet`, its settings, and what runs it.

    `run` imports what it needs when it is called, for imports are slow. `words` are names of `WORDS`.
    """

    name: str
    help: str
    settings: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    sweep_file: bool = False
    words: tuple[str, ...] = ()
    children: tuple["Command", ...] = ()


def word_of(args: argparse.Namespace, name: str, actions: tuple[str, ...]) -> str:
    """Return the word after an action. Raises `BadInput` for another action, and where the word is missing."""
    command = getattr(args, "child", args.command)
    if args.action not in actions:
        raise BadInput(command, args.action, checks.choose(args.action, actions))
    if not args.word:
        raise BadInput(f"{command} {args.action}", "", f"give {name}")
    return str(args.word)
