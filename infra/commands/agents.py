"""`prunefleet agents`: a sweep's agents, and what is asked of them."""

import argparse
from pathlib import Path

from prunefleet.infra.commands.definition import Command
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.fleet import control as agents
    from prunefleet.infra.fleet.control_table import show

    named = args.action in ("list", *agents.ACTIONS)
    if not named and args.agent:
        raise BadInput("agents", args.action, checks.choose(args.action, ("list", *agents.ACTIONS)))
    action = args.action if named else "list"
    if action != "list" and not args.agent:
        raise BadInput(f"agents {action}", "", "give the name of an AGENT, or its host")
    given = args.sweep if action != "list" else args.agent if named else args.action
    of_up = agents.use_folder_of_up(Path(args.data))
    paths = agents.sweeps(given or of_up, args.project)
    told = agents.listed(paths) if action == "list" else agents.asked(paths, action, args.agent)
    show(told, as_json=args.json, action=action)
    return 0


COMMAND = Command(
    "agents",
    "list a sweep's agents, or pause, resume, drain or stop one by its name, or all of a host",
    ("project", "data", "json"),
    _run,
    words=("action", "agent", "sweep"),
)
