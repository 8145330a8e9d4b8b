"""docs/results/fleet.json and fleet.md: what `make bench-fleet` measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support_fleet_load import BEAT_S, lengths
from support_measure import machine

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def keep(plan: dict[str, Any], steps: Sequence[dict[str, Any]], really: bool) -> None:
    """Print the figures, and put them into the results unless this was only a trial of the bench."""
    known = {"machine": machine(), "plan": plan, "steps": list(steps)}
    text = page(known)
    print("\n" + text)
    if really:
        (RESULTS / "fleet.json").write_text(json.dumps(known, separators=(",", ":")) + "\n")
        (RESULTS / "fleet.md").write_text(text)


def page(known: dict[str, Any]) -> str:
    """The page for these figures."""
    on, plan, steps = known["machine"], known["plan"], known["steps"]
    trials = plan["trials"]
    own = [length for step in steps for number in range(step["agents"]) for length in lengths(number, trials)]
    late = [f"{step['lag_ms']:.1f}" for step in steps]
    waits = zip(steps, _rows(steps, "beats"), _rows(steps, "posts"), late, strict=True)
    return f"""\
# A fleet of simulated agents

`make bench-fleet` on {on["cores"]} × {on["cpu"]}, {on["system"]}, Python {on["python"]}; raw data:
[fleet.json](fleet.json). Hub, controller and all agents ran on the one machine at the same time, each row in one
sitting on a new hub.

Every agent beats every {BEAT_S:.0f} s and does {trials} trials of a `{plan["method"]}` sweep that sleep
{min(own):.1f} to {max(own):.1f} s each, {np.mean(own):.1f} on average, on the hub's real wire: what the client sends
for an agent, a run, its files and an artifact, {plan["bytes"] / 1e3:.0f} kB of files a trial. n is the number of
trials. *Of linear*: trials per hour beside so many times those of one agent; *of the most*: beside agents that no
server keeps waiting, since what ends between two beats is replaced at the next.

| agents | n | trials per hour | of linear | of the most | given at once | hub, of a core | controller | load |
|---|---|---|---|---|---|---|---|---|
{_lines(_throughput(steps, trials))}

## Heartbeats and posts

Milliseconds, as the load's process saw them; it woke up late itself by the last column (p99).

| agents | heartbeats | p50 | p95 | p99 | longest | file_stream | p50 | p95 | p99 | longest | late |
|---|---|---|---|---|---|---|---|---|---|---|---|
{_lines([f"| {step['agents']} | {beats} | {posts} | {own} |" for step, beats, posts, own in waits])}
"""


def rate(step: dict[str, Any], trials: int) -> float:
    """Trials per hour while every agent was at work."""
    return float(sum(3600 * trials / turn for turn in step["turns"]))


def of_linear(step: dict[str, Any], one: dict[str, Any], trials: int) -> float:
    """Trials per hour beside so many times those of one agent."""
    return rate(step, trials) / (step["agents"] * rate(one, trials))


def most(agents: int, trials: int) -> float:
    """Trials per hour where a server takes no time: a trial costs whole beats."""
    turns = [sum(BEAT_S * np.ceil(each / BEAT_S) for each in lengths(number, trials)) for number in range(agents)]
    return float(sum(3600 * trials / turn for turn in turns))


def _throughput(steps: Sequence[dict[str, Any]], trials: int) -> list[str]:
    lines = []
    for step in steps:
        found, agents = rate(step, trials), step["agents"]
        shares = f"{of_linear(step, steps[0], trials):.1%} | {found / most(agents, trials):.1%}"
        given = f"{step['given'] / max(1, step['asked']):.1%}"
        load = " | ".join(f"{step[name] / step['seconds']:.0%}" for name in ("hub_s", "controller_s", "cpu_s"))
        lines.append(f"| {agents} | {step['ended']} | {found:,.0f} | {shares} | {given} | {load} |")
    return lines


def _rows(steps: Sequence[dict[str, Any]], what: str) -> list[str]:
    found = [np.array(step[what]) for step in steps]
    return [
        " | ".join([str(len(each)), *(f"{value:.1f}" for value in (*np.percentile(each, [50, 95, 99]), each.max()))])
        for each in found
    ]


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)
