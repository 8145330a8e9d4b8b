"""docs/results/fleet.json and fleet.md: what `make bench-fleet` measured, part by part."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.fleet.load import BEAT_S, SPREAD_S, lengths
from studies.storm.study import KINDS, Pace
from support.measure import machine
from support.paths import RESULTS

HEAD = """\
# A fleet

`make bench-fleet` on {machine}; raw data: [fleet.json](fleet.json).
All of a fleet ran on the one machine at the same time, each row and each part in one sitting on a hub of its own.
"""


def keep(part: str, found: dict[str, Any], really: bool) -> None:
    """Print a part's figures, and put them into the results unless this was only a trial of the bench."""
    print("\n" + _PARTS[part](found))
    if not really:
        return
    path = RESULTS / "fleet.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[part] = {"machine": machine(), **found}
    path.write_text(json.dumps(known, separators=(",", ":")) + "\n")
    (RESULTS / "fleet.md").write_text(page(known))


def page(known: dict[str, Any]) -> str:
    """The page for what is known so far."""
    on = next(iter(known.values()))["machine"]
    head = HEAD.format(machine=f"{on['cores']} × {on['cpu']}, {on['system']}, Python {on['python']}")
    return "\n".join([head, *(_PARTS[part](known[part]) for part in _PARTS if part in known)])


def _agents(known: dict[str, Any]) -> str:
    plan, steps = known["plan"], known["steps"]
    trials = plan["trials"]
    own = [length for step in steps for number in range(step["agents"]) for length in lengths(number, trials)]
    late = [f"{step['lag_ms']:.1f}" for step in steps]
    waits = zip(steps, _rows(steps, "beats"), _rows(steps, "posts"), late, strict=True)
    return f"""\
## Simulated agents whose trials sleep

Every agent beats every {BEAT_S:.0f} s and does {trials} trials of a `{plan["method"]}` sweep that sleep
{min(own):.1f} to {max(own):.1f} s each, {np.mean(own):.1f} on average, on the hub's real wire: what the client sends
for an agent, a run, its files and an artifact, {plan["bytes"] / 1e3:.0f} kB of files a trial. Agents begin
evenly over {SPREAD_S:.0f} s, as long as a trial and its beat take. n is the number of
trials. *Of linear*: trials per hour beside so many times those of one agent (bar: 95 % to 64 agents); *of the
most*: beside agents that no server keeps waiting, since what ends between two beats is replaced at the next.

| agents | n | trials per hour | of linear | of the most | given at once | hub, of a core | controller | load |
|---|---|---|---|---|---|---|---|---|
{_lines(_throughput(steps, trials))}

Heartbeats (bar: a p99 of 100, none of 1000) and posts in milliseconds, as the load's process saw them;
it woke up late itself by the last column (p99).

| agents | heartbeats | p50 | p95 | p99 | longest | file_stream | p50 | p95 | p99 | longest | late |
|---|---|---|---|---|---|---|---|---|---|---|---|
{_lines([f"| {step['agents']} | {beats} | {posts} | {own} |" for step, beats, posts, own in waits])}
"""


def _storm(found: dict[str, Any]) -> str:
    pace, count = Pace(*found["pace"]), len(found["recovered"])
    by_kind = {kind: [each for each in found["recovered"] if each[0] == kind] for kind in KINDS}
    lines = [
        f"| {kind} | {len(each)} | {np.median([one[3] for one in each]):.1f} | {max(one[3] for one in each):.1f} |"
        for kind, each in by_kind.items()
        if each
    ]
    return f"""\
## Real agents in a {found["name"]} storm

{found["trials"]} trials on two devices by real `wandb agent` processes, in network namespaces: a hub, two hosts that
train, three that only measure, two of these of one kind. While they worked ({found["seconds"] / 60:.1f} min, seed
{found["seed"]}) a host of each sort and the hub were killed, stopped, cut off and slowed again and again, for up to
{pace.longest:.0f} s: {count} faults, one every {found["seconds"] / max(1, count):.0f} s.
Every trial ended once, every request was answered once, no host measured twice at a time
({found["sittings"]} sittings). Tried again after a fault: {found["again"]} runs; given up after the last retry:
{found["gave_up"]}.

- Trials a minute, from the first one's end on: {found["calm_per_minute"]:.2f} without faults
  ({found["calm"]} trials), {found["storm_per_minute"]:.2f} in the storm, which is {throughput(found):.1%}
  (bar: {0.9 * found["hosts_alive"]:.1%}, nine tenths of the time left).
- Of the hosts' time {found["hosts_alive"]:.0%} was left to work in, and {found["hosts_usable"]:.0%} to work in
  together: a trial needs its own host, the hub and one host of each device.

| fault | n | seconds from its end to work again, median | longest |
|---|---|---|---|
{_lines(lines)}
"""


def throughput(found: dict[str, Any]) -> float:
    """Trials a minute in the storm beside those without."""
    return float(found["storm_per_minute"] / found["calm_per_minute"])


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


_PARTS = {"agents": _agents, "dense": _storm, "sparse": _storm}
