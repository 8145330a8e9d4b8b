"""docs/results/fidelity.json and fidelity.md: what `make bench-fidelity` measured, part by part."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prunefleet.objective.trial import Device

from support.paths import RESULTS

HEAD = """\
# Whether a latency can be trusted

`make bench-fidelity` on {cores} × {cpu}, {os}, OpenVINO {openvino}, torch {torch}; raw data:
[fidelity.json](fidelity.json). One thread, f32, batch of one; [measurement](../measurement.md) tells how.
"""


def keep(part: str, found: dict[str, Any], device: Device, really: bool = True) -> None:
    """Print a part's figures, and put them into the results unless this was only a trial of the bench."""
    print("\n" + _PARTS[part](found))
    if not really:
        return
    path = RESULTS / "fidelity.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[part] = {"device": device.to_json(), **found}
    path.write_text(json.dumps(known, separators=(",", ":")) + "\n")
    (RESULTS / "fidelity.md").write_text(page(known))


def page(known: dict[str, Any]) -> str:
    """The page for what is known so far."""
    on = next(iter(known.values()))["device"]
    head = HEAD.format(**{key: on[key] for key in ("cores", "cpu", "os")}, **_versions(on))
    return "\n".join([head, *(_PARTS[part](known[part]) for part in _PARTS if part in known)])


def _versions(device: dict[str, Any]) -> dict[str, str]:
    return {name: device["versions"].get(name, "none") for name in ("openvino", "torch")}


def _repeats(found: dict[str, Any]) -> str:
    latencies = found["latencies"]
    rows = "\n".join(_row(latency) for latency in latencies)
    beside = f"{found['busy']} of the other cores busy" if found["busy"] else "nothing else running"
    bar = " (bar: 2 %)" if found["busy"] else ""
    return f"""\
## One candidate again and again, {beside}

The demonstration network with half of its channels against itself, {len(latencies)} sittings as a trial holds one. The
largest ratio is {found["spread"]:.2%} above the smallest{bar}.

| ratio | 95 % interval | rounds | p50, ms | p99, ms | dense p50, ms | load before | noisy |
|---|---|---|---|---|---|---|---|
{rows}
"""


def _row(latency: dict[str, Any]) -> str:
    low, high = latency["ratio_lo"], latency["ratio_hi"]
    times = " | ".join(f"{latency[key]:.4f}" for key in ("p50_ms", "p99_ms", "baseline_p50_ms"))
    load = (latency["before"] or {}).get("load")
    shown = "unknown" if load is None else f"{load:.2f}"
    noisy = "yes" if latency["noisy"] else "no"
    return f"| {latency['ratio']:.4f} | {low:.4f} to {high:.4f} | {latency['n']} | {times} | {shown} | {noisy} |"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """By what part the first are longer: the median over the pairs, and the ends of its 95 % interval."""
    apart = np.array(ours) / np.array(theirs) - 1
    drawn = np.random.default_rng(0).choice(apart, (2000, len(apart)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(apart)), float(low), float(high)


def _benchmark_app(found: dict[str, Any]) -> str:
    rows = []
    for name, each in found["networks"].items():
        ours, theirs = (float(np.median(each[key])) for key in ("ours_ms", "theirs_ms"))
        apart, low, high = paired(each["ours_ms"], each["theirs_ms"])
        in_turns, *_ = paired(each["in_turns_ms"], each["ours_ms"])
        figures = f"{ours:.3f} | {theirs:.3f} | {apart:+.2%} [{low:+.2%}, {high:+.2%}] | {in_turns:+.2%}"
        rows.append(f"| {name} | {len(each['ours_ms'])} | {figures} |")
    lines = "\n".join(rows)
    return f"""\
## Beside OpenVINO's benchmark_app

Medians of single calls at 128 × 128, random weights, about {found["seconds"]} s of calls each. In a turn three
processes run, one at a time for a moment each, so that all see the host alike; the difference is the median over
the turns of that within each, with its 95 % interval (bar: 3 %). Here and there the network is loaded once and called
again and again. A trial has networks take turns and loads each eight times: the last column is what that adds to the
milliseconds here.

| network | turns | here, ms | benchmark_app, ms | difference | in turns |
|---|---|---|---|---|---|
{lines}
"""


def _order(found: dict[str, Any]) -> str:
    first, second = found["ratios"]
    places = np.argsort(first)
    rows = "\n".join(f"| {first[i]:.4f} | {second[i]:.4f} | {second[i] / first[i] - 1:+.2%} |" for i in places)
    return f"""\
## {len(first)} candidates in two sittings

Random candidates on the channel grid, {found["rounds"][0]} and {found["rounds"][1]} rounds. Spearman's rho of the two
rows of ratios: {found["rho"]:.4f} (bar: .98).

| first sitting | second | difference |
|---|---|---|
{rows}
"""


def _steps(precision: str) -> Callable[[dict[str, Any]], str]:
    def part(found: dict[str, Any]) -> str:
        ratios = ", ".join(f"{n}: {ratio:.3f}" for n, ratio in zip(found["widths"], found["ratios"], strict=True))
        return f"""\
## Channels pay in steps of {found["step"]}, {precision}

Two 3 × 3 convolutions, 64 → n → 64 channels at 14 × 14, ratio to n = 64: {ratios}.
"""

    return part


_PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "repeats_busy": _repeats,
    "repeats_quiet": _repeats,
    "benchmark_app": _benchmark_app,
    "order": _order,
    "steps_f32": _steps("f32"),
    "steps_bf16": _steps("bf16"),
}
