"""`prunefleet up`: a whole sweep on this machine."""

import argparse
import sys

from prunefleet.infra.commands.command import Command
from prunefleet.infra.fleet.up.options import SETTINGS, Options


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet.up.agent_commands import StepFailed
    from prunefleet.infra.fleet.up.up import up

    try:
        return up(Options.from_args(args))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code


COMMAND = Command(
    "up",
    "run a whole sweep on this machine: hub, dense model, profile, agents, answer; the same command resumes it",
    SETTINGS,
    _run,
    sweep_file=True,
)
