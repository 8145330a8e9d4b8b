"""Draws docs/img/controller.svg: what the search thinks along one line of candidates of a problem in a formula.

From the repository: `PYTHONPATH=tests python docs/img/controller.py` (needs the extra `notebook`).
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from prunefleet import AskTell, Space

# The figure shows the inside of the search, so these are no public names.
from prunefleet.infra.controller.candidates import Grid
from prunefleet.infra.controller.pruning.channels import ChannelGrid, read
from prunefleet.infra.controller.pruning.search import INTERVAL, PruningSearch

from support.controller import DENSE, GOAL, NAMES, Problem, sweep_config

TRIALS, GROUP = 14, "b_in"
PROBLEM = Problem.seeded(3)


def main() -> None:
    """Fourteen trials, then the line through the best of them along one group."""
    profile = PROBLEM.profile()
    play = AskTell(sweep_config(), profile, "figure")
    for place in range(TRIALS):
        ((name, found),) = play.ask().items()
        kept = Space(profile.groups).kept(found.config["ratio"])
        trial = PROBLEM.trial(name, found.params, kept, place)
        play.tell(name, trial.latency_ratio, trial.metric)
    space = ChannelGrid(play.sweep, profile)
    facts = read(space, play.trials)
    search = PruningSearch(space, profile, GOAL, facts, 0)
    best = facts.known[search.favourite()[0]]
    column = NAMES.index(GROUP)
    counts = space.axes[column].kept
    line = np.array([[*best[:column], count, *best[column + 1 :]] for count in counts], dtype=float)
    tried = set(facts.tried)
    grid = Grid(space.sizes, [space.nearest(kept) for kept in facts.tried])
    gains = search.acquisition(np.array([space.nearest([int(k) for k in row]) for row in line]))
    free = np.array([space.nearest([int(k) for k in row]) not in grid.taken for row in line])
    seen = np.array([tuple(int(k) for k in row) in tried for row in line])
    named = [dict(zip(NAMES, map(int, row), strict=True)) for row in line]
    ends = np.array([[-INTERVAL], [0.0], [INTERVAL]])
    drop = 100 * search._drop.sample(search._drop.predict(line), ends)
    ratio = search._latencies.sample(line, ends)[0]
    score = search.values(line)

    mpl.rcParams.update({"svg.hashsalt": "prunefleet", "svg.fonttype": "none", "font.size": 9})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(4, 1, figsize=(6.4, 7.6), sharex=True, layout="constrained")
    truths = [[100 * PROBLEM.drop(each) for each in named], [PROBLEM.latency(each) for each in named]]
    for panel, (low, middle, high), truth, title in zip(
        panels, (drop, ratio), truths, ("drop, points", "latency ratio"), strict=False
    ):
        panel.fill_between(counts, low, high, color="#3b6ea5", alpha=0.25, lw=0, label="90 % interval")
        panel.plot(counts, middle, color="#3b6ea5", label="expected")
        panel.plot(counts, truth, color="black", lw=0.9, ls="--", label="true")
        panel.plot(np.array(counts)[seen], np.array(truth)[seen], "o", color="black", ms=4, label="tried")
        panel.set_ylabel(title)
    assert GOAL.max_drop is not None
    panels[0].axhline(100 * GOAL.max_drop, color="#b5482f", lw=0.9)
    panels[0].text(counts[-1], 100 * GOAL.max_drop, "limit ", color="#b5482f", ha="right", va="bottom")
    panels[0].legend(frameon=False, fontsize=8)
    low, middle, high = np.percentile(score, [5, 50, 95], axis=0)
    panels[2].fill_between(counts, low, high, color="#3b6ea5", alpha=0.25, lw=0)
    panels[2].plot(counts, score.mean(axis=0), color="#3b6ea5")
    panels[2].plot(counts, [PROBLEM.score(each) for each in named], color="black", lw=0.9, ls="--")
    panels[2].axhline(search._best, color="grey", lw=0.9, ls=":")
    panels[2].text(counts[0], search._best, "best so far", color="grey", va="bottom")
    panels[2].set_ylabel("score")
    panels[3].plot(np.array(counts)[free], gains[free], "o-", color="#3b6ea5", ms=3)
    panels[3].set_ylim(gains[free].max() - 60, gains[free].max() + 3)
    panels[3].set_ylabel("log expected\nimprovement")
    panels[3].set_xlabel(f"channels that group {GROUP} keeps; the others as in the best candidate of {TRIALS} trials")
    figure.suptitle(f"Dense metric {DENSE:.0%}: the two models, the score on top of them, what a trial is worth")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
