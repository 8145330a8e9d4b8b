"""Searches on the surrogates of the table: what a game is, what a pick is worth, and the best there is to be found.

A game is one search of `TRIALS` trials, `PENDING` of them at once, each told with the noise that the table has. What
is played stays known under a digest of all that the surrogates were fitted to, so a run that was ended goes on.
"""

import heapq
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunefleet.agent.host.cache_files import replace_file
from prunefleet.agent.profile.points import Effort, points
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.profiles.profile import Profile

from studies.table.latency import ALONE, as_measured
from studies.table.players import BEYOND, OURS, PLAYERS, Player, beyond, gain, player
from studies.table.surrogate import VALIDATION, Facts, Floats, Surrogate, accuracy_of, fitted, judged_on
from support.side_by_side import side_by_side

Kept = tuple[int, ...]
RATIO = "latency"
TRIALS, PENDING, SEEDS = 40, 4, 20
CHECKS = (10, 20, 30)
SIDE_BY_SIDE = 2
DROP_TOLERANCE, RATIO_TOLERANCE = 0.1, 0.01
"""Beyond a limit, in points of the metric and as a share of the limit on latency: not yet infeasible."""
PENALTY = 10.0
GOALS = {
    "fastest": Goal("fastest", max_drop=0.01),
    "most accurate": Goal("most_accurate", max_drop=None, max_latency_ratio=0.5),
}


def worth(drop: float, ratio: float, goal: Goal) -> float:
    """What a pick is worth by its true values: the gain, less what an infeasible one pays.

    `fastest`: minus the latency in percent of the dense one; a drop of more than 0.1 points beyond the limit pays 50
    for each point beyond it. `most_accurate`: minus the drop in points; a latency of more than 1 % beyond the limit
    pays 10 points, and 50 for each whole limit beyond it.
    """
    excess = beyond(drop, ratio, goal)
    if goal.kind == Kind.FASTEST:
        return gain(drop, ratio, goal) - (BEYOND * excess if excess > DROP_TOLERANCE else 0.0)
    return gain(drop, ratio, goal) - (PENALTY + BEYOND * excess if excess > RATIO_TOLERANCE else 0.0)


def worths(truth: Floats, goal: Goal) -> Floats:
    """The same for what a surrogate says of many [n, 3] → [n]."""
    return np.array([worth(drop, ratio, goal) for drop, _, ratio in truth.tolist()])


def observed_best(seen: Sequence[tuple[float, float]], goal: Goal) -> int:
    """Which trial a user keeps, by measured drop and ratio: the best within the limit, else the least beyond it."""

    def rank(place: int) -> tuple[float, float]:
        drop, ratio = seen[place]
        excess = beyond(drop, ratio, goal)
        return (0.0, -gain(drop, ratio, goal)) if excess <= 0 else (1.0, excess)

    return min(range(len(seen)), key=rank)


@dataclass(frozen=True)
class Game:
    """Who plays for what, on which family of surrogate, with which seed."""

    family: str
    goal: str
    player: str
    seed: int
    trials: int = TRIALS
    pending: int = PENDING

    @property
    def key(self) -> str:
        """What it is remembered under."""
        return "/".join(map(str, (self.family, self.goal, self.player, self.trials, self.pending, self.seed)))


def play(facts: Facts, game: Game) -> dict[str, Any]:
    """One game; the same for the same facts and seed.

    Noise and durations depend on the seed and a trial's number alone: all players have the same luck.
    """
    surrogate, goal = fitted(facts, game.family), GOALS[game.goal]
    profile = planned(facts, surrogate, game.seed) if game.player == OURS else facts.profile
    search = player(game.player, facts.space, profile, goal, game.seed)
    queue: list[tuple[float, int, str, list[int]]] = []
    names: list[str] = []
    kept: list[list[int]] = []
    seen: list[tuple[float, float]] = []
    true: list[float] = []
    asks: list[float] = []
    told: dict[str, Any] = {"observed": [], "recommended": {}}

    def launch(now: float) -> None:
        began = time.perf_counter()
        asked = search.ask() if len(asks) < game.trials else None
        if asked is None:
            return
        asks.append(time.perf_counter() - began)
        channels = [asked[1][spec.name] for spec in facts.space.groups]
        ratio = surrogate([channels])[0, 2]
        takes = np.random.default_rng([game.seed, 1, len(asks)]).lognormal(0, 0.3) * (0.3 + 0.7 * ratio)
        heapq.heappush(queue, (now + takes, len(asks), asked[0], channels))

    for _ in range(game.pending):
        launch(0.0)
    while queue:
        now, number, name, channels = heapq.heappop(queue)
        drop, _, ratio = surrogate([channels])[0].tolist()
        noise = np.random.default_rng([game.seed, 2, number]).normal(size=2)
        measured = drop + facts.noise[VALIDATION] * noise[0], ratio * math.exp(facts.noise[RATIO] * noise[1])
        search.tell(name, *measured)
        names.append(name)
        kept.append(channels)
        seen.append(measured)
        true.append(worth(drop, ratio, goal))
        told["observed"].append(round(true[observed_best(seen, goal)], 4))
        if len(seen) in CHECKS:
            _recommended(search, names, true, told)
        launch(now)
    _recommended(search, names, true, told)
    said = search.recommend()
    picks = {"observed": observed_best(seen, goal), "tried": int(np.argmax(true))}
    picks |= {"recommended": names.index(said)} if said is not None else {}
    return told | {
        "trials": len(seen),
        "distinct": len(set(map(tuple, kept))),
        "picks": {how: _pick(surrogate, kept[place], seen[place], goal) for how, place in picks.items()},
        "ask_s": [round(float(np.mean(asks)), 3), round(max(asks), 3)],
    }


def planned(facts: Facts, surrogate: Surrogate, seed: int) -> Profile:
    """The profile with the latencies that `prunefleet plan` would measure on the surrogate's device, noise included.

    Those are of single groups and of mixed candidates, none of them trained; what the metric loses is the table's own.
    """
    wanted = points(facts.space, Effort())
    ratios = surrogate([[kept[spec.name] for spec in facts.space.groups] for _, kept in wanted])[:, 2]
    ratios = ratios * np.exp(facts.noise[RATIO] * np.random.default_rng([seed, 3]).normal(size=len(ratios)))
    timed = [
        {"name": f"{group}{ALONE}{kept[group]}", "ratio": float(ratio)}
        for (group, kept), ratio in zip(wanted, ratios, strict=True)
        if group
    ]
    mixed = [(kept, float(ratio)) for (group, kept), ratio in zip(wanted, ratios, strict=True) if not group]
    return replace(as_measured(facts.profile, timed), latencies=tuple(mixed))


def _recommended(search: Player, names: Sequence[str], true: Sequence[float], told: dict[str, Any]) -> None:
    name = search.recommend()
    if name is not None:
        told["recommended"][str(len(names))] = round(true[names.index(name)], 4)


def _pick(surrogate: Surrogate, kept: list[int], seen: tuple[float, float], goal: Goal) -> dict[str, Any]:
    drop, holdout, ratio = surrogate([kept])[0].tolist()
    values = {"drop": drop, "holdout": holdout, "ratio": ratio, "measured_drop": seen[0], "measured_ratio": seen[1]}
    return {"worth": round(worth(drop, ratio, goal), 4), "kept": kept} | {k: round(v, 5) for k, v in values.items()}


def optimum(facts: Facts, family: str, goal: Goal, starts: int = 24, seed: int = 0) -> dict[str, Any]:
    """The best candidate of a surrogate: steepest ascent over single groups and random pairs of them from many starts.

    From the three best ends it goes on over all pairs. `agree` is the share of starts that end within 1 of the best.
    """
    surrogate, random = fitted(facts, family), np.random.default_rng(seed)
    grid = [np.array(facts.space.levels(spec.name)) for spec in facts.space.groups]

    def value(kept: NDArray[np.int64]) -> Floats:
        return worths(surrogate(kept), goal)

    ladder = np.array([list(rung.values()) for rung in facts.space.uniform_ladder()])
    known = np.unique(np.rint(facts.samples[VALIDATION].shares * [s.width for s in facts.space.groups]), axis=0)
    drawn = np.column_stack([random.choice(levels, 2000) for levels in grid])
    pool = np.concatenate([ladder, known.astype(int), drawn])
    ends = pool[np.argsort(-value(pool), kind="stable")[:starts]]
    ends, found = _climb(ends, value, lambda kept: _near(kept, grid, random, 120))
    best = np.argsort(-found, kind="stable")[:3]
    last, at = _climb(ends[best], value, lambda kept: _pairs(kept, grid))
    place = int(np.argmax(at))
    drop, holdout, ratio = surrogate(last[place : place + 1])[0].tolist()
    return {
        "worth": float(at[place]),
        "kept": last[place].tolist(),
        "drop": drop,
        "holdout": holdout,
        "ratio": ratio,
        "agree": float(np.mean(found >= at[place] - 1)),
    }


def _climb(states: NDArray[np.int64], value: Any, near: Any) -> tuple[NDArray[np.int64], Floats]:
    """All states at once, each to its best neighbour, until none has a better one."""
    states, found = states.copy(), value(states)
    for _ in range(200):
        around = [near(kept) for kept in states]
        values = np.split(value(np.concatenate(around)), np.cumsum([len(each) for each in around])[:-1])
        rose = False
        for place, (kept, worth_of) in enumerate(zip(around, values, strict=True)):
            if worth_of.max() > found[place] + 1e-9:
                states[place], found[place], rose = kept[worth_of.argmax()], worth_of.max(), True
        if not rose:
            break
    return states, found


def _near(kept: NDArray[np.int64], grid: Sequence[Any], random: np.random.Generator, pairs: int) -> NDArray[np.int64]:
    """One group at any of its levels, and some random pairs of groups."""
    found = [_with(kept, {place: level}) for place, levels in enumerate(grid) for level in levels]
    for _ in range(pairs if len(grid) > 1 else 0):
        two = random.choice(len(grid), 2, replace=False)
        found.append(_with(kept, {place: random.choice(grid[place]) for place in two}))
    return np.array(found)


def _pairs(kept: NDArray[np.int64], grid: Sequence[Any]) -> NDArray[np.int64]:
    """Any two groups at any of their levels."""
    return np.array(
        [kept]
        + [
            _with(kept, {one: first, two: second})
            for one, two in combinations(range(len(grid)), 2)
            for first, second in product(grid[one], grid[two])
        ]
    )


def _with(kept: NDArray[np.int64], changed: Mapping[int, int]) -> NDArray[np.int64]:
    changed_kept = kept.copy()
    for place, level in changed.items():
        changed_kept[place] = level
    return changed_kept


def games(families: Sequence[str], seeds: int, trials: int = TRIALS, goals: Sequence[str] = tuple(GOALS)) -> list[Game]:
    """All games, in an order in which all players have their first seeds early."""
    return [
        Game(family, goal, name, seed, trials)
        for goal in goals
        for seed in range(seeds)
        for family in families
        for name in PLAYERS
    ]


def load(path: Path, facts: Facts) -> dict[str, Any]:
    """What is known of these very facts; of others nothing is gone on with."""
    known = dict(json.loads(path.read_text())) if path.exists() else {}
    if known.get("digest") == facts.digest:
        return known
    accuracy = accuracy_of(facts)
    return {
        "digest": facts.digest,
        "fitted": dict(facts.counts),
        "noise": dict(facts.noise),
        "accuracy": accuracy,
        "families": list(judged_on(accuracy)),
        "optima": {},
        "games": {},
    }


def save(path: Path, known: Mapping[str, Any]) -> None:
    """Write what is known, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(known, separators=(",", ":")) + "\n").encode())


def missing(facts: Facts, wanted: Sequence[Game], known: dict[str, Any]) -> Iterator[None]:
    """Play what is not known yet, two games at a time, into `known`; a step for each that ends."""
    for game in wanted:
        if f"{game.family}/{game.goal}" not in known["optima"]:
            known["optima"][f"{game.family}/{game.goal}"] = optimum(facts, game.family, GOALS[game.goal])
            yield
    todo = [game for game in wanted if game.key not in known["games"]]
    if not todo:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with side_by_side(SIDE_BY_SIDE) as pool:
        waiting = {pool.submit(play, facts, game): game for game in todo}
        for done in as_completed(waiting):
            known["games"][waiting[done].key] = done.result()
            yield
