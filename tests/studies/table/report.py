"""docs/results/table.md: what the table holds by now, how noisy it is, and how to read it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prunefleet.objective.profiles.profile import Profile

from studies.table.drop import told_of as drop_told_of
from studies.table.latency import told_of
from studies.table.passes import AGAIN, DEVICE, GRID, HEAD, LATENCY, PROFILE, TRIAL, drawn_of, jobs, joined
from studies.table.study import ORIGINS, SETTINGS, name_of, table_of

Rows = Sequence[Mapping[str, Any]]
QUANTILES = (0, 10, 25, 50, 75, 90, 100)


def keep(network: str) -> None:
    """Write the page beside the table, and print it."""
    text = page(network)
    (SETTINGS[network].folder() / f"{name_of(network)}.md").write_text(text)
    print("\n" + text)


def page(network: str) -> str:
    """The page for what is known so far."""
    table = table_of(network)
    head, rows = table.rows(HEAD)[0], joined(table)
    wanted = len(jobs(drawn_of(head), SETTINGS[network]))
    failed = sum("failed" in row for row in table.rows(TRIAL))
    parts = [_about(head, network), _state(rows, failed, wanted)]
    if rows:
        parts += [_drops(rows, head["dense"]), _noise(rows), _origins(rows, head["dense"])]
    devices = {row["id"]: row["device"] for row in table.rows(DEVICE)}
    parts.append(_latencies(table.rows(LATENCY), devices))
    if table.rows(PROFILE):
        profile = Profile.from_json(table.rows(PROFILE)[0]["profile"])
        parts.append(told_of(profile, table.rows(LATENCY), "the table's grid"))
        parts.append(_on_grid(profile, table.rows(GRID), devices))
        parts.append(drop_told_of(profile, rows, head["dense"]["validation"], seed_sd(rows, "validation")[0]))
    parts.append(TAIL)
    return "\n".join(part for part in parts if part)


def drops(rows: Rows, dense: Mapping[str, float], split: str = "validation") -> "np.ndarray[Any, Any]":
    """What each trial lost against the dense network, fractions [n]."""
    return np.array([dense[split] - row[split] for row in rows])


def seed_sd(rows: Rows, split: str) -> tuple[float, int]:
    """Standard deviation of a metric over seeds of fine-tuning, pooled over repeated candidates, and their number."""
    by_name: dict[str, list[float]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row[split])
    repeated = [each for each in by_name.values() if len(each) > 1]
    free = sum(len(each) - 1 for each in repeated)
    total = sum(float(np.var(each)) * len(each) for each in repeated)
    return (float(np.sqrt(total / free)) if free else float("nan")), len(repeated)


def _about(head: Mapping[str, Any], network: str) -> str:
    groups = ", ".join(f"{each['name']} {each['width']}" for each in head["groups"])
    dense, setting = head["dense"], SETTINGS[network]
    splits = ", ".join(f"{dense[split]:.2%} on {split}" for split in ("validation", "holdout", "test"))
    return f"""\
# A table of real trials

`make bench-table`. Raw data: [{name_of(network)}.jsonl]({name_of(network)}.jsonl), a JSON object a line.

- **Network.** {head["task"]}: {dense["macs"] / 1e6:.2f} MMACs, {dense["params"]} parameters; dense {head["metric"]}
  {splits}. Its weights are beside the table, in half precision, so that every machine prunes the same network.
- **Groups**, with their widths: {groups}; channels in steps of {head["groups"][0]["step"]}, whatever the machine.
- **Trials.** Filters of least L2 norm go, batch norms are re-estimated, {head["epochs"]:g} epochs of fine-tuning at
  learning rate {head["lr"]:g} in batches of {head["batch"]}.
- **Candidates.** {len(head["candidates"])} distinct ones in a random order, so that any beginning is a fair sample:
  the dense network and the uniform ones; of the others a third each with random ratios, from the profile's curves for
  latency limits with up to four groups changed, and close to what the curves suggest for drops of 0.2 to 3 points.
  {setting.repeated} of them are trained with {len(setting.seeds)} seeds.
"""


def _state(rows: Rows, failed: int, wanted: int) -> str:
    left = wanted - len(rows) - failed
    seconds = [sum(row["seconds"].values()) for row in rows]
    worked = [row["processor_seconds"] for row in rows if "processor_seconds" in row]
    took = f", {np.median(seconds):.1f} s each (median; waiting for other work on the host is in it)" if rows else ""
    took += f", {np.median(worked):.1f} s of a core" if worked else ""
    where = ", ".join(sorted({f"{row['device']['cpu']} ({row['arithmetic']})" for row in rows}))
    return (
        f"**{len(rows)} of {wanted} trials** are in the table{took}"
        + (f", on {where}" if where else "")
        + (f"; {failed} more diverged" if failed else "")
        + (f". {left} are left: `make bench-table` goes on with them.\n" if left else ".\n")
    )


def _drops(rows: Rows, dense: Mapping[str, float]) -> str:
    lines = [
        f"| {split} | "
        + " | ".join(f"{each:+.2%}" for each in np.percentile(drops(rows, dense, split), QUANTILES))
        + " |"
        for split in ("validation", "holdout")
    ]
    head = "| lost, against the dense network, by percentile | " + " | ".join(map(str, QUANTILES)) + " |"
    return "\n".join([head, f"|{'---|' * (len(QUANTILES) + 1)}", *lines]) + "\n"


def _noise(rows: Rows) -> str:
    found = {split: seed_sd(rows, split) for split in ("validation", "holdout")}
    count = found["validation"][1]
    if not count:
        return "No candidate is trained with several seeds yet.\n"
    spread = {split: float(np.std([row[split] for row in rows])) for split in found}
    told = " and ".join(f"{sd:.2%} on {split} (of all trials {spread[split]:.2%})" for split, (sd, _) in found.items())
    return f"Standard deviation over seeds of fine-tuning (candidates: {count}): {told}.\n"


def _origins(rows: Rows, dense: Mapping[str, float]) -> str:
    lines = [
        "| origin | trials | lost on validation: least, median, most | latency ratio, median |",
        "|---|---|---|---|",
    ]
    for origin in ORIGINS:
        own = [row for row in rows if row["origin"] == origin]
        if own:
            lost = ", ".join(f"{each:+.2%}" for each in np.percentile(drops(own, dense), (0, 50, 100)))
            lines.append(f"| {origin} | {len(own)} | {lost} | {_median(_ratios(own))} |")
    return "\n".join(lines) + "\n"


def _ratios(rows: Rows) -> list[float]:
    return [row[LATENCY]["ratio"] for row in rows if row[LATENCY]]


def _on_grid(profile: Profile, timed: Rows, devices: Mapping[str, Mapping[str, Any]]) -> str:
    if not timed:
        return ""
    device = devices[timed[0]["device"]]
    steps = f"steps of {device['channel_steps']['f32']} channels"
    return told_of(profile, timed, f"the grid that sweeps have on {device['cpu']}, {steps}")


def _median(values: Iterable[float]) -> str:
    each = list(values)
    return f"{np.median(each):.3f}" if each else "not measured"


def _latencies(timed: Rows, devices: Mapping[str, Mapping[str, Any]]) -> str:
    if not timed:
        return "**Latencies** are not measured yet.\n"
    ratios = [row["ratio"] for row in timed]
    again = [np.log(row[AGAIN] / row["ratio"]) for row in timed if AGAIN in row]
    widths = [(row["ratio_hi"] - row["ratio_lo"]) / row["ratio"] for row in timed]
    on = ", ".join(sorted({devices[row["device"]]["cpu"] for row in timed}))
    twice = f" {len(again)} networks are in two sittings: they differ by {np.std(again):.1%} (sd)." if again else ""
    return (
        f"**Latencies** of {len(timed)} networks at f32, untrained, on {on}: each candidate, and each group pruned\n"
        f"alone as in the profile. Ratios from {min(ratios):.3f} to {max(ratios):.3f}; the 95 % interval is\n"
        f"{np.median(widths):.1%} wide (median), {sum(row['noisy'] for row in timed)} are noisy.{twice}\n"
    )


TAIL = """\
## Rows

| `row` | what |
|---|---|
| `head` | network, groups, the dense network's metrics by split; all candidates: origin and kept channels by group |
| `profile` | each group pruned alone, as `prunefleet plan` measures it; its latencies may be of a busy host |
| `device` | a machine that trained or timed, by the `id` that other rows name it by |
| `trial` | a fine-tuning: kept channels, seed, metrics, validation before (`recalibrated`, fewer examples), seconds |
| `latency` | ratio to the dense network with its 95 % interval, by name of candidate; all of one machine |
| `grid` | the same of other candidates, drawn as `prunefleet plan` does on the grid of that machine's device |

Training may be ended at any time: a row is in the file when it is known, and another machine goes on. End it rather
than pause it: paused within a batch it holds the host's lock, and measurements wait for it. `-k trained`,
`-k measured`, `-k own_grid` and `-k judged` run one pass alone; the second and third want a quiet host for some
minutes, the last fits surrogates to the table and has [searches play on them](table-search.md). `TABLE_BENCH_ANEW=1`
times everything on another machine and puts that in the place of what is here.
"""
