"""docs/results/hub.json and hub.md: what `make bench-hub` measured, part by part."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from support.measure import machine
from support.paths import RESULTS

HEAD = """\
# The hub under load

`make bench-hub` on {machine}; raw data: [hub.json](hub.json). Everything ran on the one machine at the same time: hub,
controller, load and, in the last part, MLflow. Each part was measured in one sitting.
"""


def keep(part: str, found: dict[str, Any], really: bool = True) -> None:
    """Print a part's figures, and put them into the results unless this was only a trial of the bench."""
    print("\n" + _PARTS[part](found))
    if not really:
        return
    path = RESULTS / "hub.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[part] = {"machine": machine(), **found}
    path.write_text(json.dumps(known, separators=(",", ":")) + "\n")
    (RESULTS / "hub.md").write_text(page(known))


def page(known: dict[str, Any]) -> str:
    """The page for what is known so far."""
    on = next(iter(known.values()))["machine"]
    head = HEAD.format(machine=f"{on['cores']} × {on['cpu']}, {on['system']}, Python {on['python']}")
    return "\n".join([head, *(_PARTS[part](known[part]) for part in _PARTS if part in known)])


def _folder(found: dict[str, Any]) -> str:
    starts = found["starts"]
    asked = dict.fromkeys(what.rpartition(", ")[0] for what, *_ in starts[0]["answers"])
    lines = [f"| {what} | {_answer(starts, what, 'first')} | {_answer(starts, what, 'again')} |" for what in asked]
    start, idle, peak = ([one[key] for one in starts] for key in ("start_s", "idle_mb", "peak_mb"))
    return f"""\
## A folder with {found["runs"]:,} runs and {found["rows"]:,} rows of history

Two projects, one with a sweep of 10,000 runs and one with 20 sweeps of 500; {found["bytes"] / 1e6:.0f} MB on disk.
{len(starts)} starts of the process, on a warm disk cache: median, with the largest in brackets.

- Start until connections are accepted: {_spread(start)} s.
- Memory of the hub's process: {_spread(idle, 0)} MB after the start, {_spread(peak, 0)} MB at most after all that is
  asked below. The controller is a process of its own, there only while a sweep runs: see the next part.

| asked | first, s | again, s |
|---|---|---|
{_lines(lines)}
"""


def _answer(starts: Sequence[dict[str, Any]], what: str, turn: str) -> str:
    return _spread([seconds for one in starts for name, seconds, *_ in one["answers"] if name == f"{what}, {turn}"])


def _load(found: dict[str, Any]) -> str:
    plan, seen, samples = found["plan"], found["found"], np.array(found["samples"])
    beats, posts = np.array(seen["beats"]), np.array(seen["posts"] or [np.nan])
    hub, child = ((samples[-1, place] - samples[0, place]) / (samples[-1, 0] - samples[0, 0]) for place in (4, 5))
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth].mean(0), samples[-fifth:].mean(0)
    return f"""\
## {plan["agents"]} agents, {plan["logging"]} of them logging, for {plan["seconds"]:.0f} s

Every agent beats every 5 s. {plan["logging"]} work on a Bayesian sweep that had {found["finished"]} finished runs: each
run logs a row a second, sent every 15 s, and lasts {plan["least"]:.0f} to {plan["most"]:.0f} s; {seen["ended"]} ended,
{seen["ended"] / plan["seconds"]:.2f} a second. The others hold one long run each and give a sign of life every 30 s.
The first {plan["warm_up"]:.0f} s are not counted. Latencies are those that the load's process saw.

| | n | p50, ms | p95 | p99 | longest |
|---|---|---|---|---|---|
| heartbeat | {len(beats)} | {_percentiles(beats)} |
| file_stream | {len(posts)} | {_percentiles(posts)} |

- Asked for work {seen["asked"]} times, given at once {seen["given"]} times, which is
  {100 * seen["given"] / max(1, seen["asked"]):.1f} %.
- Memory in the second and in the last fifth of the time: hub {early[1]:.0f} and {late[1]:.0f} MB, controller beside it
  {early[3]:.0f} and {late[3]:.0f} MB. File handles: {early[2]:.0f} and {late[2]:.0f}.
- Processor time, of one core: hub {hub:.0%}, controller {child:.0%}, load {seen["cpu_s"] / plan["seconds"]:.0%}.
  The load itself woke up to {seen["lag_ms"]:.1f} ms late (p99), which is part of every latency.
"""


def _rows(found: dict[str, Any]) -> str:
    lines = []
    for batch in dict.fromkeys(cost["batch"] for cost in found["costs"]):
        costs = [cost for cost in found["costs"] if cost["batch"] == batch]
        ours, theirs = ([cost[name] for cost in costs] for name in ("hub", "mlflow"))
        times = [there / here for here, there in zip(ours, theirs, strict=True)]
        lines.append(f"| {batch} | {len(costs)} | {_spread(ours, 3)} | {_spread(theirs, 3)} | {_spread(times, 1)} |")
    return f"""\
## What a row of history costs, beside MLflow {found["mlflow"]}

CPU seconds of the server, with all its processes, for 1,000 rows of {found["numbers_a_row"]} numbers: the hub by
`file_stream`, MLflow's tracking server (one worker, SQLite) by `log-batch`, the same rows and as many to a request.
Rounds of {found["rows_a_round"]:,} rows take turns; median, with the largest in brackets.

| rows a request | n | hub | MLflow | MLflow / hub |
|---|---|---|---|---|
{_lines(lines)}
"""


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def _percentiles(values: Any) -> str:
    return " | ".join(f"{value:.1f}" for value in (*np.percentile(values, [50, 95, 99]), values.max()))


def _spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{np.median(values):.{digits}f} ({max(values):.{digits}f})"


_PARTS = {"folder": _folder, "load": _load, "rows": _rows}
