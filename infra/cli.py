"""The one command that users type, `prunefleet`: its parser, and bad input told in one line."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from prunefleet.infra.commands import agent, agents, device, invite, join, leave, up
from prunefleet.infra.commands.definition import BAD_INPUT, WORDS, Command
from prunefleet.infra.commands.hub import serve
from prunefleet.infra.settings import BY_NAME
from prunefleet.objective.errors import BadInput
from prunefleet.objective.processes import python_module

INTERRUPTED = 130
HELP = "help"

COMMANDS = (
    up.COMMAND,
    serve.COMMAND,
    invite.COMMAND,
    join.COMMAND,
    agent.COMMAND,
    leave.COMMAND,
    device.COMMAND,
    agents.COMMAND,
)
HUB_COMMANDS = serve.COMMAND.children
# These belong to the agent's room, which infra does not import: the process becomes `python -m agent NAME …`.
AGENT_COMMANDS = {
    "init": "write a commented sweep file, and a task to fill in where network and data are your own",
    "plan": "measure each layer group's sensitivity and latency, and write the search space into a sweep file",
    "check": "validate a sweep file, its task, data, device and server, and run one miniature trial",
    "measure": "answer one request on a device's queue, as `wandb agent` calls it",
    "doctor": "look for what makes trials fail or figures wrong, on this host, at its server and for a sweep",
    "cache": "show what this host's cache holds, or clear it",
    "trial": "run one trial, as `wandb agent` calls it",
}


class _Version(argparse.Action):
    """Print the version and exit; looked up only when asked for, since that takes as long as the rest of the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"prunefleet {version('prunefleet')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The command line; docs/commands.md is made from it."""
    top = argparse.ArgumentParser(prog="prunefleet", description="Find how much to prune each layer for a device.")
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        _fill(commands.add_parser(command.name, help=command.help, description=command.help), command)
    for name, text in AGENT_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    text = "show this help, or the help of COMMAND"
    commands.add_parser(HELP, help=text, description=text).add_argument("of", metavar="COMMAND", nargs="*")
    return top


def _fill(sub: argparse.ArgumentParser, command: Command) -> None:
    if command.sweep_file:
        sub.add_argument("sweep_file", metavar="SWEEP.yaml", nargs="?", default="sweep.yaml")
    _add_words(sub, command)
    for name in command.settings:
        _add(sub, name)
    sub.set_defaults(run=command.run)
    if command.children:
        children = sub.add_subparsers(dest="child", metavar="COMMAND")
        for child in command.children:
            _fill_child(children.add_parser(child.name, help=child.help, description=child.help), child, command)


def _fill_child(sub: argparse.ArgumentParser, command: Command, parent: Command) -> None:
    _add_words(sub, command)
    for name in command.settings:
        _add(sub, name, inherited=name in parent.settings)
    sub.set_defaults(run=command.run)


def _add_words(sub: argparse.ArgumentParser, command: Command) -> None:
    for word in command.words:
        shown, default = WORDS[word]
        sub.add_argument(word, metavar=shown, nargs=None if default is None else "?", default=default)


def _add(sub: argparse.ArgumentParser, name: str, *, inherited: bool = False) -> None:
    """`inherited`: it may stand before the child's name too, and then a default must not hide it."""
    setting = BY_NAME[name]
    text = f"{setting.help} (default: {setting.default})" if setting.default not in (None, False) else setting.help
    destination = "data" if name == "hub_data" else name
    if setting.default is False:
        sub.add_argument(setting.flag, dest=destination, action="store_true", help=text)
    else:
        default = argparse.SUPPRESS if inherited else setting.initial()
        sub.add_argument(setting.flag, dest=destination, default=default, metavar="X", help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for bad input and 130 for Ctrl-C, told in one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [HELP] and not {"-h", "--help"} & set(words):
        words = [*words[1:], "--help"]
    if words and words[0] in AGENT_COMMANDS:
        # Taking over the process keeps its id and group: signals of `wandb agent` reach the trial itself.
        os.execv(sys.executable, python_module("prunefleet.agent", *words))  # noqa: S606 - no shell is wanted
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
    except KeyboardInterrupt as error:
        print(f"prunefleet: stopped by Ctrl-C{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
