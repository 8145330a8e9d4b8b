"""docs/results/table-search.json and table-search.md: how searches fared on surrogates of the table of real trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.profile.points import TIMED

from studies.table.players import BASE, OURS, PLAYERS, UNIFORM, beyond
from studies.table.search import GOALS, PENDING, TRIALS, Game, save
from studies.table.study import SETTINGS, WORK, name_of
from studies.table.surrogate import FAMILIES, FOLDS, HOLDOUT, RATIO, TARGETS, VALIDATION, Facts

NAMES = {
    OURS: "prunefleet",
    BASE: "W&B's engine (`sweeps`)",
    "optuna gp": "Optuna, GPSampler",
    "optuna tpe": "Optuna, TPE",
    "random": "random",
    "uniform": "aligned uniform",
}
HOW = ("recommended", "observed", "tried")
FLOOR = {"fastest": 0.5, "most accurate": 0.05}
"""Regret below it counts as none, for ratios: half a percent of the dense latency, a twentieth of a point."""
DRAWS = 4000
ENOUGH = 0.5
"""Of the table's candidates, before results are kept in the repository."""

HEAD_ACCURACY = (
    "| family | kind | " + " | ".join(f"{target}: R² | RMSE | Spearman" for target in TARGETS) + " | judged on |"
)
HEAD_GAMES = (
    "| search | n | recommended | observed | tried | wins | ratio [95 %] | ratio, observed "
    "| over the limit, paying | drop on holdout | mean s |"
)


def complete(facts: Facts, network: str) -> bool:
    """Whether results are worth keeping: of the real network, with half of its candidates trained or more."""
    return network == "resnet20" and facts.counts["candidates"] >= ENOUGH * facts.counts["of"]


def path_of(facts: Facts, network: str) -> Path:
    """Where results go: beside the table, or into the cache where they are only a trial."""
    folder = SETTINGS[network].folder() if complete(facts, network) else cache_folder() / WORK
    return folder / f"{name_of(network)}-search.json"


def keep(known: Mapping[str, Any], path: Path) -> None:
    """Write the results, and the page beside them."""
    save(path, known)
    path.with_suffix(".md").write_text(page(known, path.name))


def best_known(known: Mapping[str, Any], family: str, goal: str) -> float:
    """The worth of the optimum that was found, or of what a search tried, where that is better still."""
    tried = [each["picks"]["tried"]["worth"] for key, each in known["games"].items() if _is_of(key, family, goal)]
    return max(known["optima"][f"{family}/{goal}"]["worth"], *tried) if tried else -np.inf


def _is_of(key: str, family: str, goal: str) -> bool:
    return key.startswith(f"{family}/{goal}/")


def regrets(known: Mapping[str, Any], family: str, goal: str, player: str, how: str) -> dict[int, float]:
    """By seed, what a search's pick is worth less than the best known; who does not recommend is judged by observed."""
    best, found = best_known(known, family, goal), {}
    for seed, each in _games(known, family, goal, player).items():
        picks = each["picks"]
        found[seed] = best - picks.get(how, picks["observed"])["worth"]
    return found


def _games(known: Mapping[str, Any], family: str, goal: str, player: str) -> dict[int, dict[str, Any]]:
    """A player's games by seed; of several lengths the longest."""
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for key, each in known["games"].items():
        *_, name, trials, _pending, seed = key.split("/")
        if _is_of(key, family, goal) and name == player and int(trials) >= found.get(int(seed), (0,))[0]:
            found[int(seed)] = int(trials), each
    return {seed: found[seed][1] for seed in sorted(found)}


def interval(values: Sequence[float], what: Any = np.median) -> tuple[float, float, float]:
    """A statistic over seeds with its 95 % bootstrap interval."""
    told = np.asarray(values)
    drawn = np.random.default_rng(0).choice(told, (DRAWS, len(told)))
    low, high = np.percentile(what(drawn, axis=1), (2.5, 97.5))
    return float(what(told)), float(low), float(high)


def verdict(known: Mapping[str, Any], family: str, goal: str, player: str, how: str = "recommended") -> dict[str, Any]:
    """Median regret, wins over W&B's engine and the ratio to it, each seed against the same seed."""
    mine, base = (regrets(known, family, goal, each, how) for each in (player, BASE))
    both = sorted(set(mine) & set(base))
    logs = [float(np.log(max(mine[s], FLOOR[goal]) / max(base[s], FLOOR[goal]))) for s in both]
    ratio = np.exp(interval(logs, np.mean)) if logs else np.full(3, np.nan)
    return {
        "n": len(mine),
        "median": interval(list(mine.values())),
        "wins": sum(each < 0 for each in logs),
        "pairs": len(both),
        "ratio": tuple(map(float, ratio)),
    }


def page(known: Mapping[str, Any], raw: str) -> str:
    """The page for what is known so far."""
    parts = [_head(known, raw), _accuracy(known)]
    parts += [
        _table(known, family, goal)
        for goal in GOALS
        for family in known["families"]
        if any(_is_of(key, family, goal) for key in known["games"])
    ]
    return "\n".join(parts)


def _head(known: Mapping[str, Any], raw: str) -> str:
    fitted, noise = known["fitted"], known["noise"]
    return f"""\
# How searches fare on a table of real trials

`make bench-table`; raw data: [{raw}]({raw}). The [table](table.md) holds real trials of one network. **Models fitted to
it answer for candidates that it does not hold**, so a difference that one family of models shows and the other does not
is the model's, not the search's. One network and one host: intervals are over seeds of noise and search alone.

- **Fitted to** {fitted["trials"]} trials, of {fitted["candidates"]} of {fitted["of"]} candidates, and
  {fitted["latencies"]} latencies; {fitted["diverged"]} trials that diverged are left out.
- **Noise** in what searches are told: {noise[VALIDATION]:.2%} on validation (sd over seeds of fine-tuning, from
  {fitted["repeated"]} candidates), {noise[RATIO]:.1%} of the latency (sd, from {fitted["twice"]} networks timed twice).
- **Games**: {_sizes(known)} trials, {PENDING} at once; all players meet the same noise. Aligned uniform has
  {_uniform(known)} candidates, and stops there. prunefleet has a profile, as `prunefleet plan` makes one: the curves of
  the table, and latencies of {TIMED} networks, single groups and mixed candidates, untrained, by the surrogate with its
  noise.
- **Regret**: what a pick is worth less than the best candidate known, by the surrogate's noise-free values on
  validation. *Recommended* is the pick that the search itself names, where it does, *observed* the best one as
  measured within the limit, *tried* the truly best one that was tried.
- **Worth**, `fastest`: percent of the dense latency; a pick that truly drops more than 0.1 points beyond the limit pays
  50 for each point beyond it. `most_accurate`: points of the metric; one that is truly more than 1 % beyond the limit
  on latency pays 10 points, and 50 for each whole limit beyond it.
- **Ratio**: geometric mean over seeds of the regret over that of W&B's engine at the same seed, recommended (ours)
  against observed; regrets below {FLOOR["fastest"]:g} and {FLOOR["most accurate"]:g} count as that. Wins are over
  W&B's engine too, by the same regrets.
- **Over the limit**: how many picks are truly over it by anything at all, and how many by so much that they pay.
"""


def _sizes(known: Mapping[str, Any]) -> str:
    """How many trials games have: one number, but where a short run was made before."""
    return ", ".join(sorted({key.split("/")[3] for key in known["games"]})) or str(TRIALS)


def _uniform(known: Mapping[str, Any]) -> int:
    return max((each["trials"] for key, each in known["games"].items() if f"/{UNIFORM}/" in key), default=0)


def _accuracy(known: Mapping[str, Any]) -> str:
    noise = known["noise"]
    rows = [
        f"| {family} | {FAMILIES[family].kind} | "
        + " | ".join(
            f"{found[target]['r2']:.3f} | {_unit(found[target]['rmse'], target)} | {found[target]['spearman']:.3f}"
            for target in TARGETS
        )
        + f" | {'yes' if family in known['families'] else ''} |"
        for family, found in known["accuracy"].items()
    ]
    return f"""\
## The surrogates

Cross-validated in {FOLDS} folds by candidate: all seeds of a candidate are in one fold. The noise, below which no RMSE
can come, is {_unit(noise[VALIDATION], VALIDATION)}, {_unit(noise[HOLDOUT], HOLDOUT)} and {_unit(noise[RATIO], RATIO)}.
Searches are judged on the two best families of different kinds, by the variance of validation and latency left.

{HEAD_ACCURACY}
|---|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _unit(value: float, target: str) -> str:
    """Points of the metric, or percent of the latency."""
    return f"{100 * value:.1f} %" if target == RATIO else f"{100 * value:.2f} pp"


def _table(known: Mapping[str, Any], family: str, goal: str) -> str:
    best = known["optima"][f"{family}/{goal}"]
    limit = GOALS[goal]
    told = (
        f"loses at most {limit.max_drop:.0%}" if goal == "fastest" else f"latency ratio ≤ {limit.max_latency_ratio:g}"
    )
    rows = [_row(known, family, goal, player) for player in PLAYERS if _games(known, family, goal, player)]
    return f"""\
## {goal[0].upper()}{goal[1:]}, {family}

Goal: {told}. Best candidate: ratio {best["ratio"]:.3f}, drop {best["drop"]:.2%} (holdout {best["holdout"]:.2%});
{best["agree"]:.0%} of the starts of the local search ended within 1 of it. Regret in {_of(goal)}: median [95 %].

{HEAD_GAMES}
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _of(goal: str) -> str:
    return "percent of the dense latency" if goal == "fastest" else "points"


def _row(known: Mapping[str, Any], family: str, goal: str, player: str) -> str:
    found = {how: verdict(known, family, goal, player, how) for how in HOW}
    said, digits = found["recommended"], 1 if goal == "fastest" else 2
    games = list(_games(known, family, goal, player).values())
    picks = [each["picks"].get("recommended", each["picks"]["observed"]) for each in games]
    paid = sum(-pick["worth"] > 100 * pick["ratio" if goal == "fastest" else "drop"] + 1e-2 for pick in picks)
    over = sum(beyond(pick["drop"], pick["ratio"], GOALS[goal]) > 0 for pick in picks)
    medians = " | ".join(
        f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        for middle, low, high in (found[how]["median"] for how in HOW)
    )
    ratio, low, high = said["ratio"]
    return (
        f"| {NAMES[player]} | {said['n']} | {medians} | {said['wins']} of {said['pairs']} "
        f"| {ratio:.2f} [{low:.2f}, {high:.2f}] | {found['observed']['ratio'][0]:.2f} | {over}, {paid} of {len(picks)} "
        f"| {np.median([pick['holdout'] for pick in picks]):.2%} | {np.mean([g['ask_s'][0] for g in games]):.2f} |"
    )


def unfinished(known: Mapping[str, Any], wanted: Sequence[Game]) -> list[str]:
    """Games that are still to be played, by key."""
    return [game.key for game in wanted if game.key not in known["games"]]
