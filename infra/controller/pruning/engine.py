"""Bayesian search over pruning ratios: the profile's warm points first, then expected improvement on the channel grid.

A candidate is the channels that each group keeps. `search` says what a trial of it is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunefleet.infra.controller.candidates import Best, Floats, Grid, maximise
from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.pruning.channels import ChannelGrid, Facts, read
from prunefleet.infra.controller.pruning.search import PruningSearch, acquisition_of
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile

SEED = "seed"  # of the recipe: a candidate's second run prunes and trains with another one


def suggest(
    sweep: SweepSpec, profile: Profile, goal: Goal, trials: Sequence[StoredTrial], seed: int
) -> Suggestion | Exhausted:
    """The next candidate of a pruning sweep; see `Controller.suggest`."""
    space = ChannelGrid(sweep, profile)
    facts = read(space, trials)
    rng = np.random.default_rng(seed)
    grid = Grid(space.sizes, (point for kept in facts.tried if (point := space.exact(kept)) is not None))
    if grid.left <= 0:
        return Exhausted(f"all {grid.count} candidates of the channel grid have been tried")
    for place, point in enumerate(space.warm(profile)):
        if point not in grid.taken:
            why = {"kind": "warm", "place": place + 1, "of": len(profile.warm)}
            return _answer(sweep, space, facts, point, rng, why)
    return _search(sweep, space, PruningSearch(space, profile, goal, facts, seed), grid, rng)


@dataclass(frozen=True)
class Recommendation:
    """The trial that the models think best of, going by what they expect of it and not by its own luck.

    `why` has what they expect, with 90 % intervals, as a suggestion's has; `score` is the mean of the score expected.
    """

    trial: str
    kept: Mapping[str, int]
    score: float
    why: Mapping[str, Any]


def recommend(
    sweep: SweepSpec, profile: Profile, goal: Goal, trials: Sequence[StoredTrial], seed: int
) -> Recommendation | None:
    """The best of the trials whose metric and latency are known, by the posterior mean of the score; None without any.

    A trial that measured a lucky metric is held against its neighbours, so it need not be the best one observed.
    """
    space = ChannelGrid(sweep, profile)
    ended = [trial for trial in trials if trial.answered and trial.drop is not None]
    facts = read(space, [trial for trial in trials if not trial.pending])
    if not facts.drop_at:
        return None
    search = PruningSearch(space, profile, goal, facts, seed)
    place, score = search.favourite()
    kept = facts.known[place]
    names = [trial.name for trial in ended if space.tried(trial) == kept]
    counts = {axis.spec.name: int(count) for axis, count in zip(space.axes, kept, strict=False)}
    return Recommendation(names[0], counts, score, search.expected(np.array([kept], dtype=float)))


def _search(
    sweep: SweepSpec, space: ChannelGrid, search: PruningSearch, grid: Grid, rng: np.random.Generator
) -> Suggestion | Exhausted:
    best = maximise(search.acquisition, grid, search.starts(), rng)
    if best is None:
        return Exhausted("no candidate of the channel grid is left")
    again = search.again()
    if again is not None and again.score > best.score:
        return _replicate(sweep, space, search, again, rng)
    return _answer(sweep, space, search.facts, tuple(best.point.tolist()), rng, search.why(best))


def _replicate(
    sweep: SweepSpec, space: ChannelGrid, search: PruningSearch, again: Best, rng: np.random.Generator
) -> Suggestion:
    """Another run of a candidate that was tried, with another seed."""
    why = {**search.why(again), "kind": "replicate", "acquisition": acquisition_of("log expected gain", again.score)}
    found = _answer(sweep, space, search.facts, tuple(again.point.tolist()), rng, why)
    before = search.facts.tried.count(tuple(map(int, space.kept(again.point[None])[0])))
    recipe = dict(found.config.get("recipe", {}))
    recipe[SEED] = int(recipe.get(SEED, 0)) + before
    return replace(found, config={**found.config, "recipe": recipe}, repeat=before)


def _answer(
    sweep: SweepSpec,
    space: ChannelGrid,
    facts: Facts,
    point: tuple[int, ...],
    rng: np.random.Generator,
    why: Mapping[str, Any],
) -> Suggestion:
    params = space.params(point, rng)
    here = space.kept(np.array([point], dtype=np.int64))[0]
    told = {**why, "kept": space.counts(point), "nearest": _nearest(space, facts, here)}
    return Suggestion(params, sweep.space.config(params), told)


def _nearest(space: ChannelGrid, facts: Facts, kept: Floats) -> dict[str, Any] | None:
    """The tried trial whose kept shares (and choices) differ least, and in how many groups it differs."""
    if not facts.tried:
        return None
    apart = np.abs(space.matrix(facts.tried) - kept) / space.widths
    place = int(apart.sum(axis=1).argmin())
    channels = apart[place, : space.groups]
    differs, distance = int((channels > 0).sum()), round(float(channels.mean()), 4)
    return {"trial": facts.names[place], "groups": differs, "distance": distance}
