"""Agents as a terminal shows them; what all have in common needs no column, and a narrow terminal has fewer."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunefleet.infra.fleet.control import NEEDS_HUB, day, present
from prunefleet.infra.fleet.up.display import LOG_WIDTH

NARROW = 90  # columns; below it the least telling ones are left out
HEADS = ("agent", "host", "state", "run", "heard")
FIGURES = ("ended", "failed")
WHOLE = ("agent", "state", "run", "since")
PACKAGES = ("prunefleet", "openvino", "torch")


def show(told: Sequence[Mapping[str, Any]], *, as_json: bool, action: str) -> None:
    """Print what is told of each sweep's agents: a table of those that are there, or a line for each that was asked."""
    if as_json:
        print(json.dumps(list(told), indent=1))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    for sweep in told:
        if action == "list":
            _table(console, sweep)
        for line in sweep.get("lines", ()):
            console.print(Text(line), soft_wrap=True)
    if not told:
        print("The project has no sweep that takes runs; give SWEEP to see another")
    if action == "list" and not all(sweep["hub"] for sweep in told):
        print(f"This server tells no more: {NEEDS_HUB}.")


def _table(console: Console, sweep: Mapping[str, Any]) -> None:
    agents = present(sweep)
    unlike = [name for name in PACKAGES if _differ(agents, name)]
    more = ["since", *unlike, *(["device"] if _differ(agents, "device") else [])]
    heads = [*HEADS, *FIGURES, *more] if console.width >= NARROW else list(HEADS)
    table = Table(title=f"Agents of {sweep['sweep']}, {sweep['state'].lower()}", title_justify="left", box=SIMPLE)
    for name in heads:
        table.add_column(name, no_wrap=name in WHOLE, overflow="fold", justify="right" if name in FIGURES else "left")
    for agent in agents:
        table.add_row(*(Text(_cell(agent, name)) for name in heads))
    if agents:
        console.print(table)
    else:
        console.print(Text(f"No agent works on {sweep['sweep']}."), soft_wrap=True)
    for host in sweep["held_hosts"]:
        line = f"{host} is held, with whatever joins from there: prunefleet agents resume {host}"
        console.print(Text(line), soft_wrap=True)
    if gone := len(sweep["agents"]) - len(agents):
        console.print(Text(f"{gone} more {'has' if gone == 1 else 'have'} finished."), soft_wrap=True)


def _differ(agents: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({_cell(agent, name) for agent in agents} - {""}) > 1


def _cell(agent: Mapping[str, Any], name: str) -> str:
    if name in PACKAGES:
        return str(agent["versions"].get(name, ""))
    if name == "state" and agent["state"] == "silent" and agent["hold"]:
        return f"silent, {agent['hold']}"
    if name == "since":
        return day(agent["since"])
    if name == "heard":
        return day(agent["heard"]) if agent["heard_s"] is None else _ago(agent["heard_s"])
    value = agent["name" if name == "agent" else name]
    return "" if value is None else str(value)


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(max(seconds, 0))} s ago"
