"""docs/results/live.md: how far a live comparison is, and what each search would have come to by its trials so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import feasible, values
from prunefleet.objective.goals.stats import wilson_interval

from studies.live.study import HEAD, METHODS, OURS, PROFILE, RANDOM, TRIAL, UNIFORM, WANDB, Setting, turns

NAMES = {OURS: "prunefleet", WANDB: "W&B's engine (`sweeps`)", RANDOM: "random", UNIFORM: "aligned uniform"}
RECOMMENDED = "prunefleet, recommended"
Rows = Sequence[Mapping[str, Any]]
Games = Mapping[tuple[str, int], Rows]
"""The trials of each search, by method and seed, in their order."""


@dataclass(frozen=True)
class Pick:
    """The network that would be kept: the trial it is of, None for the dense one, and its figures."""

    row: Mapping[str, Any] | None = None
    ratio: float = 1.0
    drop: float = 0.0
    holdout_drop: float = 0.0


def games(rows: Rows) -> Games:
    """Rows by search, each from its first trial to its last without a gap."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda each: each["place"]):
        found.setdefault((row["method"], row["seed"]), []).append(row)
    return found


def observed(rows: Rows, head: Mapping[str, Any]) -> Pick:
    """The fastest trial whose validation meets the limit; the dense network while there is none that is faster."""
    goal = Goal.from_json(head["goal"])
    picks = [pick for row in rows if "failed" not in row and _meets(pick := _pick(row, head), goal)]
    return min([Pick(), *picks], key=lambda pick: pick.ratio)


def recommended(rows: Rows, head: Mapping[str, Any]) -> Pick:
    """What the search itself named after the last of these trials; the dense network while it named none."""
    place = rows[-1]["recommended"] if rows else None
    return Pick() if place is None else _pick(rows[place], head)


def _pick(row: Mapping[str, Any], head: Mapping[str, Any]) -> Pick:
    dense = head["dense"]
    return Pick(row, row["ratio"], dense["validation"] - row["validation"], dense["holdout"] - row["holdout"])


def _meets(pick: Pick, goal: Goal) -> bool:
    return feasible(float(values(1 - pick.drop, pick.drop, pick.ratio, goal)))


Column = tuple[str, Callable[[Rows, Mapping[str, Any]], Pick]]
COLUMNS: Mapping[str, Column] = {
    NAMES[OURS]: (OURS, observed),
    RECOMMENDED: (OURS, recommended),
    **{NAMES[method]: (method, observed) for method in METHODS if method != OURS},
}


def seeds_at(found: Games, count: int) -> list[int]:
    """The seeds of which every method has so many trials: methods are compared on the same ones."""
    seeds = sorted({seed for _, seed in found})
    return [seed for seed in seeds if all(len(found.get((method, seed), ())) >= count for method in METHODS)]


def picks_at(found: Games, head: Mapping[str, Any], name: str, count: int) -> list[Pick]:
    """What a column would keep after so many trials, by seed."""
    method, how = COLUMNS[name]
    return [how(found[method, seed][:count], head) for seed in seeds_at(found, count)]


def seeds_interval(figures: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of the means of all resamples of a few seeds."""
    means = [float(np.mean(each)) for each in product(figures, repeat=len(figures))]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def keep(setting: Setting) -> None:
    """Write the page beside the rows, and print it."""
    text = page(setting)
    setting.folder().joinpath("live.md").write_text(text)
    print("\n" + text)


def page(setting: Setting) -> str:
    """The page for what is known so far."""
    head, rows = setting.table.rows(HEAD)[0], setting.table.rows(TRIAL)
    found = games(rows)
    parts = [_about(head, setting), _state(rows, found, setting)]
    if rows:
        parts += [_conditions(rows), _ends(found, head)]
    if seeds_at(found, 1):
        parts += [_curve(found, head, RATIOS), _curve(found, head, DROPS)]
    return "\n".join(parts)


def _about(head: Mapping[str, Any], setting: Setting) -> str:
    dense, examples, limit = head["dense"], head["examples"], head["goal"]["max_drop"]
    known = len(setting.table.rows(PROFILE)[0]["profile"]["latencies"])
    judged = ", ".join(f"{dense[split]:.2%} on {split} ({examples[split]:,} images)" for split in dense)
    return f"""\
# Searches beside each other on real trials

`make bench-live`. Raw data: [live.jsonl](live.jsonl), a JSON object a line.

- **Network.** That of [the table](table.md), {head["macs"] / 1e6:.2f} MMACs; dense {head["goal"]["metric"]} {judged}.
- **Goal.** The fastest network that loses at most {limit:.1%} on validation.
- **Trials.** Each is pruned, timed untrained against the dense network under the host's lock (sittings of
  {head["sitting_s"]:g} s, again while the host is not as it usually is), recalibrated, fine-tuned and judged, on
  {head["device"]["cpu"]}, {head["device"]["cores"]} cores.
- **Searches.** {NAMES[OURS]} with a profile, whose latencies ({known} networks, untrained: each group alone, and mixed
  candidates) were measured on this host before; {NAMES[WANDB]}, version 0.2, and random draws, of the same sweep file
  but for the method; aligned uniform networks from wide to narrow, then again with other seeds of fine-tuning. A search
  sees validation and latency alone, and is asked when its trial before has ended. What {NAMES[OURS]} knows beforehand
  cost it no trial here.
- **No trial is skipped.** Leaving out training where the latency alone shows that a trial cannot win is part of ours,
  and would be open to {NAMES[WANDB]} as well: all methods run without.
- **Order.** Seed by seed, and in a seed one trial of each method in turn: whatever drifts on the host hits all
  alike.{_apart(setting)}
- **Picks.** After so many trials a search keeps the fastest network that meets the limit on validation, and the dense
  one (ratio 1, nothing lost) while none is faster; *recommended* is what {NAMES[OURS]} itself names, by its models.
  What is told of a pick is what **holdout** lost, which no search sees; its ratio is the one that it was chosen by.
"""


def later(rows: Rows) -> dict[str, int]:
    """How many trials were made when all other methods had theirs, of a method that was played again; by method.

    Rows are in the order in which they were known.
    """
    apart = {}
    for name in METHODS:
        others = [place for place, row in enumerate(rows) if row["method"] != name]
        after = len(rows) - 1 - max(others, default=len(rows))
        if after > max(len(METHODS), (len(rows) - len(others)) // 2):
            apart[name] = after
    return apart


def _apart(setting: Setting) -> str:
    return "".join(
        f" But {count} trials of {NAMES[name]} came later, when the others had all of theirs, by a later version:\n"
        "  each ratio is of the dense network's latency in the same sitting."
        for name, count in later(setting.table.rows(TRIAL)).items()
    )


def _state(rows: Rows, found: Games, setting: Setting) -> str:
    wanted, reused = len(turns(setting)), [row for row in rows if row["reused"]]
    rest = ": `make bench-live` goes on with the others." if len(rows) < wanted else "."
    lines = [f"**{len(rows)} of {wanted} trials** are done{rest}"]
    full = [str(len(seeds_at(found, count))) for count in (1, setting.trials)]
    lines.append(f"Seeds that all methods have begun: {full[0]}, ended: {full[1]}, of {len(setting.seeds)}.")
    by = ", ".join(f"{NAMES[name]} {sum(row['method'] == name for row in reused)}" for name in METHODS)
    lines.append(
        f"{len(reused)} trials were the same as an earlier one (kept channels and seed of fine-tuning), in the same\n"
        f"search or another method's, and took its figures: {by}."
    )
    return "\n".join(lines) + "\n"


def _conditions(rows: Rows) -> str:
    """How trials went, by method: a host that was worse to one of them would show here."""
    lines = [
        "| search | trials | diverged | noisy sittings | dense ms, 10-90 % | s a trial | s of a core | s to suggest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        fresh = [row for row in own if not row["reused"]]
        if not fresh:
            continue
        low, high = np.percentile([row["baseline_p50_ms"] for row in fresh], (10, 90))
        took = np.median([sum(row["seconds"].values()) for row in fresh])
        core = np.median([row["processor_seconds"] for row in fresh])
        asked = np.median([row["asked_s"] for row in own])
        lines.append(
            f"| {NAMES[method]} | {len(own)} | {sum('failed' in row for row in own)} "
            f"| {sum(row['noisy'] for row in fresh)} of {len(fresh)} | {low:.3f} to {high:.3f} "
            f"| {took:.1f} | {core:.1f} | {asked:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _ends(found: Games, head: Mapping[str, Any]) -> str:
    """What each search keeps at the end, or by now, with the binomial interval of holdout."""
    dense, limit = head["dense"]["holdout"], head["goal"]["max_drop"]
    n = head["examples"]["holdout"]
    lines = [
        f"""\
## What each search keeps by now

In brackets: the 95 % interval of the latency ratio; of what holdout lost, the binomial one of the pick's metric on
{n:,} images, the dense network's taken as known. *Found* is the trial that the pick is of.

| seed | search | trials | found | ratio | lost on validation | lost on holdout | within {limit:.1%} on holdout |
|---|---|---|---|---|---|---|---|"""
    ]
    for seed in sorted({seed for _, seed in found}):
        for name, (method, how) in COLUMNS.items():
            rows = found.get((method, seed), ())
            if not rows:
                continue
            pick = how(rows, head)
            told = ("none: dense", "1", "", "", "")
            if pick.row is not None:
                low, high = wilson_interval(round(pick.row["holdout"] * n), n)
                told = (
                    str(pick.row["place"] + 1),
                    f"{pick.ratio:.3f} [{pick.row['ratio_lo']:.3f}, {pick.row['ratio_hi']:.3f}]",
                    f"{pick.drop:+.2%}",
                    f"{pick.holdout_drop:+.2%} [{dense - high:+.2%}, {dense - low:+.2%}]",
                    "yes" if pick.holdout_drop <= limit else "no",
                )
            lines.append(f"| {seed} | {name} | {len(rows)} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


Figure = tuple[str, Callable[[Pick], float], str]
RATIOS: Figure = ("Latency ratio of the pick, by number of trials", lambda pick: pick.ratio, ".3f")
DROPS: Figure = ("What the pick lost on holdout, by number of trials", lambda pick: pick.holdout_drop, "+.2%")


def _curve(found: Games, head: Mapping[str, Any], figure: Figure) -> str:
    title, figure_of, form = figure
    lines = [
        f"""\
## {title}

Means over the seeds of which all methods have so many trials (n), with the 95 % bootstrap interval over seeds. **Three
seeds are few**: the interval is little else than their range, and where two overlap nothing is shown.

| trials | n | {" | ".join(COLUMNS)} |
|---|---|{"---|" * len(COLUMNS)}"""
    ]
    count = 1
    while seeds := seeds_at(found, count):
        cells = [_cell([figure_of(pick) for pick in picks_at(found, head, name, count)], form) for name in COLUMNS]
        lines.append(f"| {count} | {len(seeds)} | " + " | ".join(cells) + " |")
        count += 1
    return "\n".join(lines) + "\n"


def _cell(figures: Sequence[float], form: str) -> str:
    mean = f"{np.mean(figures):{form}}"
    if len(figures) == 1:
        return mean
    low, high = seeds_interval(figures)
    return f"{mean} [{low:{form}}, {high:{form}}]"
