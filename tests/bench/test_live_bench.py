"""Searches beside each other on real trials, docs/results/live.*: ours, W&B's engine, random and aligned uniform.

Four methods, three seeds, 40 trials each, 17 to 24 s of a core a trial: about three core-hours. May run beside other
work, may be ended at any time, however rudely, and goes on where it was, on the same host: rows are in
docs/results/live.jsonl as soon as they are known. `LIVE_BENCH_PROCESSES` says how many trials run at the same time,
all cores unless it is set and four at most; `LIVE_BENCH_SHORT=1` tries the bench itself on a tiny network, in the
cache.
"""

import os
from itertools import product

import pytest

from studies.live.report import games, keep
from studies.live.study import METHODS, SETTINGS, TRIAL
from studies.live.trial import compare
from studies.trials.passes import say

pytestmark = [pytest.mark.bench, pytest.mark.timeout(12 * 3600)]
SETTING = SETTINGS["tiny" if os.environ.get("LIVE_BENCH_SHORT") else "resnet20"]


def test_searches_beside_each_other() -> None:
    """Every search has all its trials, and no trial was made twice; who is better is for the page to tell."""
    try:
        for row in compare(SETTING):
            what = f"{row['method']} seed {row['seed']} trial {row['place'] + 1}"
            come_to = row.get("failed") or f"ratio {row['ratio']:.3f}, validation {row['validation']:.4f}"
            took = "reused" if row["reused"] else f"{sum(row['seconds'].values()):.1f} s"
            say(f"{what}: {come_to}, {took}")
    finally:
        if SETTING.table.rows():
            keep(SETTING)
    rows = SETTING.table.rows(TRIAL)
    found = games(rows)
    assert set(found) == set(product(METHODS, SETTING.seeds))
    assert all([row["place"] for row in own] == list(range(SETTING.trials)) for own in found.values())
    made = [(*row["kept"].items(), row["tuning_seed"]) for row in rows if not row["reused"]]
    assert len(made) == len(set(made))
