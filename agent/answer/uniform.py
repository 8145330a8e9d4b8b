"""Uniform pruning around the winner: which rungs of the channel grid are needed, from the sweep or trained here."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prunefleet.agent.answer.controls import Evaluated
from prunefleet.agent.answer.networks import LOOK_S, WINNER, Networks, slowest
from prunefleet.agent.tracking.tracked_run import RunRecord

RUNGS = 16  # a network of many wide groups has hundreds of uniform candidates, and each costs an export
TRAINED_AT_MOST = 3
SECONDS_FOR_TRAINING = 45.0
Kept = dict[str, int]


def uniform_controls(
    networks: Networks, winner: Evaluated, scored: Sequence[RunRecord], report: Callable[[str], None]
) -> list[Evaluated]:
    """Return aligned uniform networks around the winner, from `scored` runs where they are there, else trained here."""
    runs, space = {key_of(run.config["kept"]): run for run in scored}, networks.context.space
    ladder = evenly([kept for kept in space.uniform_ladder() if kept != space.widths], RUNGS)
    bare = {key_of(kept): Evaluated(kept, networks.pruned(kept), 0.0) for kept in ladder}
    look = slowest(networks.measured({WINNER: winner, **bare}, LOOK_S))
    ratio = {name: look.latencies[name].ratio for name in (WINNER, *bare)}
    evaluated = {name: networks.of_run(runs[name]) for name in bare if name in runs}
    report(f"{len(bare)} aligned uniform candidates timed, {len(evaluated)} of them in the sweep")
    began = time.perf_counter()
    for _ in range(TRAINED_AT_MOST):
        name = wanted(ratio, {key: each.metric for key, each in evaluated.items()}, winner.metric)
        if name is None or time.perf_counter() - began > SECONDS_FOR_TRAINING:
            break
        evaluated[name] = networks.trained(bare[name])
    return list(evaluated.values())


def evenly(ladder: Sequence[Kept], most: int) -> list[Kept]:
    """Return at most so many of the rungs, evenly chosen, the first and the last among them."""
    places = np.linspace(0, len(ladder) - 1, min(most, len(ladder))).round().astype(int)
    return [ladder[place] for place in places]


def wanted(ratio: Mapping[str, float], evaluated: Mapping[str, float], quality: float) -> str | None:
    """Return the uniform rung to train next, so that the line is known at the winner's latency, then at its quality.

    `ratio`: latency ratios of all rungs and of "winner". `evaluated`: quality of the rungs that are trained. None when
    the rungs beside the winner's latency and those beside its quality are trained.
    """
    order = sorted((name for name in ratio if name != WINNER), key=lambda name: ratio[name])
    faster = [name for name in order if ratio[name] <= ratio[WINNER]][-1:]
    slower = [name for name in order if ratio[name] > ratio[WINNER]]
    for name in (*faster, *slower[:1]):
        if name not in evaluated:
            return name
    for name in slower:
        if name not in evaluated:
            return name
        if evaluated[name] >= quality:
            return None
    return None


def key_of(kept: Mapping[str, int]) -> str:
    """Return the name of a uniform network in a measurement session: its channels by group."""
    return ",".join(f"{group}={count}" for group, count in sorted(kept.items()))
