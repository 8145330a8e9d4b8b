"""How well the controller's latency model foretells the table's networks, beside the repeatability."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prunefleet.agent.profile.points import TIMED, Effort
from prunefleet.infra.controller.models.accuracy import LatencyModel
from prunefleet.objective.profiles.profile import Profile

from studies.table.passes import AGAIN

Rows = Sequence[Mapping[str, Any]]
TOLD = (0, 20, 80, 250)
"""Candidates besides the single groups; last come as many as `prunefleet plan` measures before the first trial."""
DRAWS = 50
ALONE = "="  # in the name of a network of which one group is pruned


def as_measured(profile: Profile, timed: Rows) -> Profile:
    """The profile with the latencies of this table's host in place of its own; those of single groups alone."""
    found = {row["name"]: row["ratio"] for row in timed}
    curves = []
    for curve in profile.curves:
        width = next(group.width for group in profile.groups if group.name == curve.group)
        ratios = {kept: found.get(f"{curve.group}{ALONE}{kept}", 1.0 if kept == width else None) for kept in curve.kept}
        have = [(kept, metric) for kept, metric in zip(curve.kept, curve.metric, strict=True) if ratios[kept]]
        kept, metric = zip(*have, strict=True)
        curves.append(replace(curve, kept=kept, metric=metric, latency_ratio=tuple(ratios[each] for each in kept)))
    return replace(profile, curves=tuple(curves), latencies=())


def repeatability(timed: Rows) -> float:
    """Relative standard deviation of one measurement of a network, from those that were in two sittings."""
    apart = [np.log(row[AGAIN] / row["ratio"]) for row in timed if AGAIN in row]
    return float(np.sqrt(np.mean(np.square(apart)) / 2)) if apart else float("nan")


def foretold(profile: Profile, timed: Rows, told: int, seed: int) -> tuple[float, float]:
    """Relative error on candidates that the model was not told of, root mean square; how often 90 % intervals hold.

    It knows what a plan measures before the first trial: single groups, and `told` candidates, drawn by `seed`.
    """
    names = [group.name for group in profile.groups]
    candidates = [row for row in timed if ALONE not in row["name"]]
    order = np.random.default_rng(seed).permutation(len(candidates))
    kept = np.array([[candidates[place]["kept"][name] for name in names] for place in order], dtype=float)
    ratios = np.array([candidates[place]["ratio"] for place in order])
    known = [
        ({name: int(count) for name, count in zip(names, row, strict=True)}, float(ratio))
        for row, ratio in zip(kept[:told], ratios[:told], strict=True)
    ]
    planned = replace(as_measured(profile, timed), latencies=tuple(known))
    model = LatencyModel(planned, kept[:0], ratios[:0])
    band = model.predict(kept[told:])
    error = np.log(ratios[told:]) - band.mean
    return float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error) <= 1.645 * band.std))


def told_of(profile: Profile, timed: Rows, grid: str) -> str:
    """A section of the page, about the candidates of a grid; nothing while too few networks are timed."""
    candidates = [row for row in timed if ALONE not in row["name"]]
    noise = repeatability(timed)
    if len(candidates) < TIMED or not noise > 0:
        return ""
    lines, twice = [], sum(AGAIN in row for row in timed)
    planned = Effort().mixed_beside(len(timed) - len(candidates))
    for told in (*TOLD, planned):
        found = np.array([foretold(profile, timed, told, seed) for seed in range(DRAWS)])
        error = np.sqrt(np.mean(found[:, 0] ** 2))
        lines.append(f"| {told} | {error:.2%} | {error / noise:.2f} | {found[:, 1].mean():.0%} |")
    rows = "\n".join(lines)
    return f"""\
**The controller's latency model** on {grid},
told the single groups and some of the candidates, foretells the other candidates ({len(candidates)} in all,
{DRAWS} draws); `prunefleet plan` measures {planned} of them before the first trial. One measurement repeats another
within {noise:.2%} (standard deviation, {twice} networks in two sittings; part of the errors here). The bar is an error
of 1.5 times that.

| candidates told | error, root mean square | times repeatability | 90 % intervals that hold |
|---|---|---|---|
{rows}
"""
