"""The one command that users type, `prunefleet`: what it can do, its options, and bad input told in one line."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.settings import BY_NAME, whole
from objective.errors import BadInput

BAD_INPUT = 2


@dataclass(frozen=True)
class Command:
    """One word after `prunefleet`, its settings, and what runs it; loaded when called, for imports are slow."""

    name: str
    help: str
    settings: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    sweep_file: bool = False


def _up(args: argparse.Namespace) -> int:
    from infra.fleet.steps import StepFailed
    from infra.fleet.up import Options, up

    path, data, answer = Path(args.sweep_file), Path(args.data), Path(args.answer)
    port, agents = whole("--port", str(args.port)), whole("--agents", str(args.agents))
    try:
        return up(Options(path, data, args.host, port, agents, args.until_done, args.project, answer))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _hub(args: argparse.Namespace) -> int:
    from infra.server import run

    token, ready = (Path(name) if name else None for name in (args.admin_token_file, args.ready_file))
    return run(Path(args.data), args.host, whole("--port", str(args.port)), token, ready)


COMMANDS = (
    Command(
        "up",
        "run a whole sweep on this machine: hub, dense model, profile, agents, answer; the same command resumes it",
        ("agents", "until_done", "data", "host", "port", "project", "answer"),
        _up,
        sweep_file=True,
    ),
    Command(
        "hub", "serve sweeps to wandb clients", ("hub_data", "host", "port", "admin_token_file", "ready_file"), _hub
    ),
)
# These belong to the agent's room, which infra does not import: the process becomes `python -m agent NAME …`.
AGENT_COMMANDS = {
    "plan": "measure each layer group's sensitivity and latency, and write the search space into a sweep file",
    "check": "validate a sweep file, its task, data, device and server, and run one miniature trial",
    "trial": "run one trial, as `wandb agent` calls it",
}


def parser() -> argparse.ArgumentParser:
    """The command line; docs/commands.md is made from it."""
    top = argparse.ArgumentParser(prog="prunefleet", description="Find how much to prune each layer for a device.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        if command.sweep_file:
            sub.add_argument("sweep_file", metavar="SWEEP.yaml", nargs="?", default="sweep.yaml")
        for name in command.settings:
            _add(sub, name)
        sub.set_defaults(run=command.run)
    for name, text in AGENT_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return top


def _add(sub: argparse.ArgumentParser, name: str) -> None:
    setting = BY_NAME[name]
    text = f"{setting.help} (default: {setting.default})" if setting.default not in (None, False) else setting.help
    destination = "data" if name == "hub_data" else name
    if setting.default is False:
        sub.add_argument(setting.flag, dest=destination, action="store_true", help=text)
    else:
        sub.add_argument(setting.flag, dest=destination, default=setting.initial(), metavar="X", help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for bad input, which is told in one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in AGENT_COMMANDS:
        # Taking over the process keeps its id and group: signals of `wandb agent` reach the trial itself.
        os.execv(sys.executable, [sys.executable, "-m", "agent", *words])  # noqa: S606 - no shell is wanted
    try:
        args = parser().parse_args(words)
        if args.command is None:
            parser().print_help()
            return BAD_INPUT
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except BadInput as error:
        print(f"prunefleet: {error}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
