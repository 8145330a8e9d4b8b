"""Runs one command of the agent's room (`python -m agent …`) and follows what it says of its progress.

Such a command prints `progress PHASE DONE/TOTAL TEXT` and `seconds PHASE S` lines, and what it found in lines that
begin with one of `FOUND`, which the user sees too; the rest goes to its log. Exit code 2 is bad input and comes with a
line that says what would be right; any other one is a fault of this host.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunefleet.infra.fleet.supervision.process import Child, stop_all
from prunefleet.objective.processes import python_module

POLL_SECONDS = 0.3
STOP_PATIENCE = 15.0
FOUND = ("code", "group", "whole", "merged", "cheap:", "dear:", "pointless:")
"""First words of what `prunefleet plan` prints of code, groups, and what pruning them is worth."""


class StepFailed(Exception):
    """A command ended with an error; `exit_code` 2 is bad input. The message is the command's own last line."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_step(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    show: Callable[[str, str], None],
    seconds: Callable[[str, float], None],
    say: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    """Run `python -m agent ARGV` to its end; `check` may raise to stop it. Raises `StepFailed`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    child = Child(argv[0], python_module("prunefleet.agent", *argv), env, log, cwd)
    try:
        with log.open(errors="replace") as file:
            rest = ""
            while not child.wait(POLL_SECONDS):
                check()
                rest = _follow(rest + file.read(), show, seconds, say)
            _follow(rest + file.read() + "\n", show, seconds, say)
    finally:
        stop_all([child], STOP_PATIENCE)
    if code := child.ended():
        raise StepFailed(_reason(child, code), code)


def _reason(child: Child, code: int) -> str:
    """What to tell the user: bad input is the command's own line; a fault also says where to read more."""
    line = child.last_line() or "it said nothing"
    return line if code == 2 else f"`prunefleet {child.name}` ended with code {code}: {line} (log: {child.log})"


def _follow(
    text: str,
    show: Callable[[str, str], None],
    seconds: Callable[[str, float], None],
    say: Callable[[str], None],
) -> str:
    """Hand on the whole lines of `text`; returns the unfinished one at its end."""
    *lines, rest = text.split("\n")
    for line in lines:
        match line.split(maxsplit=3):
            case ["progress", phase, done, *more]:
                show(phase, " ".join([done, *more]).strip())
            case ["seconds", phase, spent]:
                seconds(phase, float(spent))
            case [word, *_] if word in FOUND:
                say(line)
    return rest
