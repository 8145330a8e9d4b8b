"""The commands of this room, `python -m agent COMMAND`; users type `prunefleet COMMAND`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prunefleet.agent.commands import init
from prunefleet.agent.host.failures import INSTALL
from prunefleet.objective import old_names
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import TrialFailed

BAD_INPUT, FAULT, INTERRUPTED = 2, 1, 130

# Read once, when torch is imported. Threads that spin while they wait for each other made two of them ten times slower
# than one whenever another process wanted a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _trial(args: argparse.Namespace) -> int:
    from prunefleet.agent.fork import fork_client

    code = fork_client.trial()
    if code is not None:
        return code
    from prunefleet.agent.commands.trial import main as trial

    return trial()


def _fork_server(args: argparse.Namespace) -> int:
    from prunefleet.agent.fork.fork_server import main as serve

    return serve(args.path, args.agent, args.ready)


def _server_of(sweep_file: Path) -> None:
    """Read the sweep file and ask the server who we are, before torch is imported: what is wrong is told at once."""
    from prunefleet.agent.tracking.probe import require_server
    from prunefleet.objective.sweepfile import read_sweep_file
    from prunefleet.objective.wandb_login import base_url

    read_sweep_file(sweep_file)
    print(f"server {base_url()}: user {require_server()}", flush=True)


def _plan(args: argparse.Namespace) -> int:
    if args.mixed is not None and args.mixed < 0:
        raise BadInput("--mixed", args.mixed, "give a whole number, 0 or more")
    _server_of(args.sweep_file)
    from prunefleet.agent.commands.plan import plan

    return plan(args.sweep_file, args.out, args.measure_on, args.mixed)


def _measure(args: argparse.Namespace) -> int:
    if args.poll:
        from prunefleet.agent.commands.poll import poll

        return poll(args.poll)
    from prunefleet.agent.commands.measure import main as measure

    return measure()


def _baseline(args: argparse.Namespace) -> int:
    _server_of(args.sweep_file)
    from prunefleet.agent.commands.plan import baseline

    return baseline(args.sweep_file)


def _check(args: argparse.Namespace) -> int:
    from prunefleet.agent.commands.check import check

    return check(args.sweep_file)


def _init(args: argparse.Namespace) -> int:
    return init.init(vars(args))


def _answer(args: argparse.Namespace) -> int:
    from prunefleet.agent.commands.answer import answer

    return answer(args.sweep, args.out)


def _doctor(args: argparse.Namespace) -> int:
    from prunefleet.agent.commands.doctor import doctor

    return doctor(args.sweep, args.json)


def _cache(args: argparse.Namespace) -> int:
    from prunefleet.agent.commands.cache import clear, show

    if args.action == "show" and args.data:
        raise BadInput("--data", True, "give it to `prunefleet cache clear`")
    return show() if args.action == "show" else clear(args.data)


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m agent`."""
    top = argparse.ArgumentParser(prog="prunefleet", description="Make and measure candidates on this host.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("trial", help="run the trial that `wandb agent` gave this process").set_defaults(run=_trial)
    measure = commands.add_parser("measure", help="answer the request that `wandb agent` gave this process")
    text = "answer what is asked of this device, where the server enqueues no runs"
    measure.add_argument("--poll", metavar="NAME", help=text)
    measure.set_defaults(run=_measure)
    for name, run, text in (
        ("plan", _plan, "train the dense model, measure each layer group, write the search space"),
        ("baseline", _baseline, "train or fetch the dense model alone"),
        ("check", _check, "validate a sweep file, task, data, device and server, and run one miniature trial"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("sweep_file", type=Path, metavar="SWEEP.yaml", nargs="?", default=Path("sweep.yaml"))
        command.set_defaults(run=run)
        if name == "plan":
            command.add_argument("--out", type=Path, metavar="FILE", help="where the filled-in sweep file goes")
            text = "measure latencies on this device of the fleet (`local`: this host), or on several: NAME,NAME"
            command.add_argument("--measure-on", metavar="NAMES", help=text)
            text = "time so many candidates pruned in several groups (default: 250, or more until 400 are timed)"
            command.add_argument("--mixed", type=int, metavar="N", help=text)
    begin = commands.add_parser("init", help="write a commented sweep file, and a task to fill in")
    for flag, text in init.flags():
        begin.add_argument(flag, metavar="X", help=text)
    begin.set_defaults(run=_init)
    last = commands.add_parser("answer", help="name a sweep's winner and measure it beside its controls")
    last.add_argument("sweep", metavar="ENTITY/PROJECT/SWEEP")
    last.add_argument("--out", type=Path, metavar="FILE", help="where the answer goes as JSON")
    last.set_defaults(run=_answer)
    unwell = commands.add_parser("doctor", help="look for what makes trials fail or figures wrong, with its remedy")
    unwell.add_argument("sweep", metavar="ENTITY/PROJECT/SWEEP", nargs="?", help="look at this sweep too")
    unwell.add_argument("--json", action="store_true", help="print the findings as JSON")
    unwell.set_defaults(run=_doctor)
    cache = commands.add_parser("cache", help="show what this host's cache holds, or clear it")
    cache.add_argument("action", choices=("show", "clear"), nargs="?", default="show")
    cache.add_argument("--data", action="store_true", help="with clear: remove data sets too")
    cache.set_defaults(run=_cache)
    server = commands.add_parser("fork-server")  # without help, for nobody types it
    server.add_argument("path", type=Path)
    server.add_argument("agent", type=int)
    server.add_argument("ready", type=int)
    server.set_defaults(run=_fork_server)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2: bad input, 1: a fault of this host, 130: Ctrl-C, each told in one line on standard error."""
    args = parser().parse_args(argv)
    old_names.install()  # tasks, and code that sweeps carry, may say the names of version 0.1
    try:
        code: int = args.run(args)
        return code
    except BadInput as error:
        print(f"prunefleet: {error}", file=sys.stderr)
        return BAD_INPUT
    except TrialFailed as error:
        print(f"prunefleet: {error}", file=sys.stderr)
        return FAULT
    except ModuleNotFoundError as error:
        print(f"prunefleet: {error}: {INSTALL}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if args.run in (_trial, _measure):
            raise  # the client tells its server by this that the run was stopped
        kept = "; what was measured is kept, and the same command goes on" if args.run is _plan else ""
        print(f"prunefleet: stopped by Ctrl-C{kept}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
