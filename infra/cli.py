"""The one command that users type, `prunefleet`: what it can do, its options, and bad input told in one line."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefleet.infra.settings import BY_NAME, NO_REMOTE_CODE, whole
from prunefleet.objective.errors import BadInput
from prunefleet.objective.processes import python_module

BAD_INPUT, INTERRUPTED = 2, 130
HELP = "help"


@dataclass(frozen=True)
class Command:
    """One word after `prunefleet`, its settings, and what runs it; loaded when called, for imports are slow."""

    name: str
    help: str
    settings: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    sweep_file: bool = False
    words: tuple[str, ...] = ()
    children: tuple["Command", ...] = ()


def _up(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.up.agent_commands import StepFailed
    from prunefleet.infra.fleet.up.up import Options, up

    path, data, answer = Path(args.sweep_file), Path(args.data), Path(args.answer)
    port, agents = whole("--port", str(args.port)), whole("--agents", str(args.agents))
    try:
        return up(Options(path, data, args.host, port, agents, args.until_done, args.project, answer))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _hub(args: argparse.Namespace) -> int:
    from prunefleet.infra.front import front
    from prunefleet.infra.hub.store.errors import StartupError
    from prunefleet.infra.hub.users.limits import MIB, Limits
    from prunefleet.infra.server import run

    def number(name: str) -> int:
        return whole(BY_NAME[name].flag, str(getattr(args, name)))

    token, ready = (Path(name) if name else None for name in (args.admin_token_file, args.ready_file))
    try:
        way = front(args.tls_cert, args.tls_key, args.root_path, args.trusted_proxies)
        sizes = number("max_body_mb") * MIB, number("max_file_mb") * MIB
        limits = Limits(*sizes, number("max_runs_project"), number("max_runs_user"))
    except StartupError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return run(Path(args.data), args.host, number("port"), token, ready, front=way, limits=limits)


def _device(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet import device_list

    if args.action == "list":
        lines = device_list.listed(args.project)
    else:
        lines = [device_list.add(_word(args, "NAME", ("list", "add")), args.project)]
        print(device_list.how_to_start(lines[0]), file=sys.stderr)
    print("\n".join(lines) or f"{args.project} has no device yet: prunefleet device add NAME")
    return 0


def _join(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.host_join import UNWELL, Unwell, join

    if args.no_remote_code:
        os.environ[NO_REMOTE_CODE] = "1"  # kept with what else its agents need
    try:
        return join(args.url, args.sweep, args.name, args.token)
    except Unwell as error:
        print(f"prunefleet: {error}", file=sys.stderr)
        return UNWELL


def _agent(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.keep import keep

    return keep(args.joined)


def _leave(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.leave import leave

    return leave(args.joined)


def _invite(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.joining.host_join import invite

    print("\n".join(invite(args.of_sweep, whole("--minutes", str(args.minutes)))))
    return 0


def _agents(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet import control as agents
    from prunefleet.infra.fleet.control_table import show

    named = args.action in ("list", *agents.ACTIONS)
    if not named and args.agent:
        raise BadInput("agents", args.action, f"use one of list, {', '.join(agents.ACTIONS)}")
    action = args.action if named else "list"
    if action != "list" and not args.agent:
        raise BadInput(f"agents {action}", "", "give the name of an AGENT, or its host")
    given = args.sweep if action != "list" else args.agent if named else args.action
    of_up = agents.use_folder_of_up(Path(args.data))
    paths = agents.sweeps(given or of_up, args.project)
    told = agents.listed(paths) if action == "list" else agents.asked(paths, action, args.agent)
    show(told, as_json=args.json, action=action)
    return 0


HUB_SETTINGS = (
    *("hub_data", "host", "port", "admin_token_file", "ready_file"),
    *("tls_cert", "tls_key", "root_path", "trusted_proxies"),
    *("max_body_mb", "max_file_mb", "max_runs_project", "max_runs_user"),
)


def _users(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _administrate(args, "users.list")
    word = _word(args, "NAME", ("list", "add", "remove"))
    return _administrate(args, f"users.{args.action}", username=word, admin=args.admin)


def _keys(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _administrate(args, "keys.list", username=args.word or None)
    word = _word(args, "USER" if args.action == "add" else "KEY", ("list", "add", "revoke"))
    return _administrate(args, f"keys.{args.action}", **{"username" if args.action == "add" else "id": word})


def _word(args: argparse.Namespace, name: str, actions: tuple[str, ...]) -> str:
    command = getattr(args, "child", args.command)
    if args.action not in actions:
        raise BadInput(command, args.action, f"use one of {', '.join(actions)}")
    if not args.word:
        raise BadInput(f"{command} {args.action}", "", f"give {name}")
    return str(args.word)


def _backup(args: argparse.Namespace) -> int:
    return _administrate(args, "backup", target=str(Path(args.target).absolute()))


def _check(args: argparse.Namespace) -> int:
    return _administrate(args, "check")


def _gc(args: argparse.Namespace) -> int:
    older = None if args.runs_older_than is None else whole("--runs-older-than", str(args.runs_older_than))
    days = whole("--abandoned-after", str(args.abandoned_after))
    return _administrate(args, "gc", dry_run=args.dry_run, abandoned_after=days, runs_older_than=older)


def _restore(args: argparse.Namespace) -> int:
    from prunefleet.infra import hub_admin

    return _told(lambda: hub_admin.restored(Path(args.source), Path(args.data)))


def _administrate(args: argparse.Namespace, operation: str, **arguments: object) -> int:
    from prunefleet.infra import hub_admin

    return _told(lambda: hub_admin.perform(Path(args.data), operation, arguments))


def _told(work: Callable[[], Mapping[str, Any]]) -> int:
    """Show what an administrator asked for; a refusal is one line, as everywhere."""
    from prunefleet.infra import hub_admin
    from prunefleet.infra.hub.store.errors import HubError

    try:
        return hub_admin.show(work())
    except HubError as error:
        print(error, file=sys.stderr)
        return hub_admin.exit_code(error)


HUB_COMMANDS = (
    Command(
        "users",
        "list users, add one (prints the key, once), or remove one: the keys end at once, the runs stay",
        ("hub_data", "admin"),
        _users,
        words=("action", "word"),
    ),
    Command(
        "keys",
        "list keys with their last use, add one to a user (prints it, once), or revoke one, with effect at once",
        ("hub_data",),
        _keys,
        words=("action", "word"),
    ),
    Command(
        "backup",
        "copy a hub to a new folder TARGET while it serves or not, and check the copy",
        ("hub_data",),
        _backup,
        words=("target",),
    ),
    Command(
        "restore",
        "make the empty folder --data the hub that was backed up in SOURCE",
        ("hub_data",),
        _restore,
        words=("source",),
    ),
    Command("check", "read the database and every file, and tell what is damaged or missing", ("hub_data",), _check),
    Command(
        "gc",
        "remove files that nothing refers to, artifacts that were never finished, and old runs where that is asked",
        ("hub_data", "dry_run", "abandoned_after", "runs_older_than"),
        _gc,
    ),
)
COMMANDS = (
    Command(
        "up",
        "run a whole sweep on this machine: hub, dense model, profile, agents, answer; the same command resumes it",
        ("agents", "until_done", "data", "host", "port", "project", "answer"),
        _up,
        sweep_file=True,
    ),
    Command(
        "hub",
        "serve sweeps to wandb clients; with a word after it, administrate such a hub",
        HUB_SETTINGS,
        _hub,
        children=HUB_COMMANDS,
    ),
    Command(
        "invite",
        "print the line that another host joins a sweep of the hub with; its token is good once, for some minutes",
        ("minutes",),
        _invite,
        words=("of_sweep",),
    ),
    Command(
        "join",
        "make this host work for a sweep: check it, keep its key, and keep its agents running, also after a reboot",
        ("token", "name", "no_remote_code"),
        _join,
        words=("url", "sweep"),
    ),
    Command(
        "agent",
        "keep one `wandb agent` per GPU running for a sweep, or for what was joined as NAME, until told to stop",
        (),
        _agent,
        words=("joined",),
    ),
    Command(
        "leave",
        "end this host's work for a sweep: agents, service and key go, and what `join` made is undone",
        (),
        _leave,
        words=("joined",),
    ),
    Command(
        "device",
        "list the devices elsewhere that measure for this project, or add one and print the line to start there",
        ("project",),
        _device,
        words=("action", "word"),
    ),
    Command(
        "agents",
        "list a sweep's agents, or pause, resume, drain or stop one by its name, or all of a host",
        ("project", "data", "json"),
        _agents,
        words=("action", "agent", "sweep"),
    ),
)
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
# These belong to the agent's room, which infra does not import: the process becomes `python -m agent NAME …`.
AGENT_COMMANDS = {
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
