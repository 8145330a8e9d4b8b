"""docs/results/search.json and search.md: how searches fared on the synthetic bench."""

import json
from typing import Any

import numpy as np

from prunefleet.agent.host.cache_files import replace_file

from studies.search.study import BASE, CELLS, OURS, QLOGNEI, SHUFFLED, Cell
from support.paths import RESULTS

NAMES = {
    OURS: "prunefleet",
    SHUFFLED: "prunefleet, curves shuffled",
    BASE: "W&B's engine (`sweeps`)",
    "optgp": "Optuna, GPSampler",
    "tpe": "Optuna, TPE",
    QLOGNEI: "BoTorch, qLogNEI",
    "random": "random",
}
FLOOR = {"D": 0.5}
LEAST = 0.05
HEAD = """\
# How searches fare on a synthetic family of pruning problems

`make bench-search`; raw data: [search.json](search.json). **The problems are formulas**, made to resemble pruning
(losses that saturate and add up to more than their sum, latency in steps of channels, noise on both, distorted
one-shot curves): a search that is better here need not be better on your network.

Regret is what the network that is kept loses in the objective against the best there is, by its true values:
percentage points of accuracy, for `fastest` percent of the dense latency; for `pareto`, where all trials count, what
their front lacks of the best one's hypervolume, in percent. *Recommended* is the network that the
search itself names, where it does; *observed* the one that measured best; *tried* the truly best one that was
tried. A ratio is the geometric mean over instances of a search's regret over that of W&B's engine, with its
one-sided 95 % bound; {budget} trials each. Seconds are those of a suggestion, mean and slowest, two games side by
side and whatever else the host did beside them.
"""
OBJECTIVES = {"A": "trade-off", "B": "most accurate", "C": "pareto", "D": "fastest"}


def regret(record: dict[str, Any], objective: str, how: str) -> float:
    """The regret at the end: of what was recommended (else observed best), observed best, or truly best."""
    curve = (how == "tried" and record["simple"]) or record["curve"]
    told = dict(map(tuple, record["rec"])) if how == "recommended" else {}
    return max(float(told.get(len(curve), curve[-1])), FLOOR.get(objective, LEAST))


def games(cell: Cell, known: dict[str, Any], player: str) -> dict[int, dict[str, Any]]:
    """A player's games by instance."""
    found = {seed: known.get(cell.key(player, seed)) for seed in range(cell.count)}
    return {seed: record for seed, record in found.items() if record is not None}


def verdict(cell: Cell, known: dict[str, Any], player: str, how: str = "recommended") -> dict[str, Any]:
    """Ratio to the base with its one-sided 95 % bound, wins, and the player's own times."""
    ours, base = games(cell, known, player), games(cell, known, BASE)
    both = sorted(set(ours) & set(base))
    mine, theirs = ([regret(each[seed], cell.objective, how) for seed in both] for each in (ours, base))
    logs = np.log(np.array(mine) / np.array(theirs))
    rng = np.random.default_rng(0)
    draws = [np.exp(rng.choice(logs, len(logs)).mean()) for _ in range(4000)]
    return {
        "n": len(both),
        "regret": float(np.mean(mine)),
        "ratio": float(np.exp(logs.mean())),
        "bound": float(np.percentile(draws, 95)),
        "wins": int((logs < 0).sum()),
        "slowest_s": max(ours[seed]["t_ask_max"] for seed in both),
        "mean_s": float(np.mean([ours[seed]["t_ask_mean"] for seed in both])),
        "latencies": max(ours[seed]["lat_calls"] for seed in both),
    }


def keep(known: dict[str, Any], really: bool) -> None:
    """Write the results, unless this was only a trial of the bench."""
    if really:
        replace_file(RESULTS / "search.json", (json.dumps(known, separators=(",", ":")) + "\n").encode())
        replace_file(RESULTS / "search.md", page(known).encode())


def page(known: dict[str, Any]) -> str:
    """The page for what is known so far."""
    parts = [HEAD.format(budget=next(iter(CELLS.values())).budget)]
    parts += [_table(name, cell, known) for name, cell in CELLS.items() if games(cell, known, BASE)]
    return "\n".join([*parts, _judge(known.get("judge", {})), _scale(known.get("scale", {}))])


def _judge(known: dict[str, Any]) -> str:
    """What judge.py says."""
    if not known:
        return ""
    rows = [
        f"| {name} | {said['n']} | {said['ratio']:.2f} | {said['bound95']:.2f} | {said['wins']} "
        f"| {said['slowest_ask_s']:.1f} | {said['latency_calls']} | {'passes' if said['pass'] else 'fails'} |"
        for name, said in known.items()
    ]
    return f"""\
## The judge

What the problems' own `judge.py` says of the first search of each table and W&B's engine, by these games: the ratio of
regrets and its bound, instances won, the slowest suggestion, and untrained latencies asked for (400 allowed).

| problems | n | ratio | bound | wins | slowest s | latencies | verdict |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _scale(known: dict[str, Any]) -> str:
    """How long suggestions take in large sweeps."""
    if not known:
        return ""
    rows = [
        f"| {each['groups']} | {each['trials']:,} | {each['pending']} "
        f"| {', '.join(f'{s:.1f}' for s in each['seconds'])} | {each['mb']} |"
        for each in known.values()
    ]
    return f"""\
## Large sweeps

One suggestion, an answer more before each; a process of its own. Bars: a median of 1 s with 500 trials, 10 s and
1,536 MB with 5,000, 64 of them pending and 50 groups.

| groups | trials | pending | seconds | MB |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _table(name: str, cell: Cell, known: dict[str, Any]) -> str:
    bars = f"ratio ≤ {cell.ratio:g}" + (f", bound < {cell.bound:g}, wins ≥ {cell.wins:.0%}" if cell.wins else "")
    rows = [_row(cell, known, player) for player in cell.players if games(cell, known, player)]
    return f"""\
## {name[0].upper()}{name[1:]}

{cell.dim} groups, objective {OBJECTIVES[cell.objective]}, {cell.pending} at once. Bars: {bars}.

| search | n | recommended | observed | tried | ratio | bound | wins | ratio, observed | mean s | slowest s |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _row(cell: Cell, known: dict[str, Any], player: str) -> str:
    found = verdict(cell, known, player)
    observed, tried = (verdict(cell, known, player, how) for how in ("observed", "tried"))
    return (
        f"| {NAMES[player]} | {found['n']} | {found['regret']:.2f} | {observed['regret']:.2f} | {tried['regret']:.2f} "
        f"| {found['ratio']:.2f} | {found['bound']:.2f} | {found['wins']} | {observed['ratio']:.2f} "
        f"| {found['mean_s']:.2f} | {found['slowest_s']:.1f} |"
    )
