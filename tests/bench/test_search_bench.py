"""How the search fares on synthetic pruning problems beside W&B's engine and others: docs/results/search.*.

Whether it passes is what judge.py of the problems' folder says. About two hours on two cores; may be ended at any time
and goes on where it was. `-k` runs single cells. Instances are drawn anew when there are no results yet;
`SEARCH_BENCH_N=10` takes fewer of them for a start.
`SEARCH_BENCH_SHORT=1` tries the bench itself: one instance, few trials.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from studies.search import scale
from studies.search.report import RESULTS, keep
from studies.search.study import CELLS, folder, judged, load, missing

pytestmark = [pytest.mark.bench, pytest.mark.timeout(6 * 3600)]
SHORT = bool(os.environ.get("SEARCH_BENCH_SHORT"))
COUNT = int(os.environ.get("SEARCH_BENCH_N", "20"))
SLOWEST_S, LATENCIES = 5.0, 400
SIZES = {(16, 500, 8): 1.0, (16, 5000, 8): 10.0, (50, 5000, 64): 10.0}
MOST_MB = 1536


@pytest.mark.parametrize(("size", "bar_s"), SIZES.items(), ids=["usual", "many trials", "large"])
def test_a_suggestion_takes_seconds(size: tuple[int, int, int], bar_s: float) -> None:
    """By itself: a median of 1 s with 500 answers; 10 s and 1.5 GB with 5,000, 64 pending and 50 groups."""
    argv = [
        sys.executable,
        scale.__file__,
        *map(str, (size[0], size[1] // (10 if SHORT else 1), size[2])),
    ]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    print(found)
    if SHORT:
        return
    known = load(RESULTS / "search.json")
    known.setdefault("scale", {})[" ".join(map(str, size))] = found
    keep(known, True)
    assert statistics.median(found["seconds"]) <= bar_s
    assert found["mb"] <= MOST_MB


@pytest.mark.parametrize("name", CELLS)
def test_half_the_regret(name: str) -> None:
    """What is recommended has at most half the regret of W&B's, with few untrained latencies and quick suggestions."""
    folder()
    cell = CELLS[name]
    cell = replace(cell, budget=12, count=1) if SHORT else replace(cell, count=min(COUNT, cell.count))
    known = {} if SHORT else load(RESULTS / "search.json")
    salt = known.setdefault("salt", secrets.token_hex(8))
    for key, record in missing(cell, known, salt, cell.count):
        known[key] = record
        keep(known, not SHORT)
    said = judged(cell, known, salt, cell.count)
    print(name, said)
    assert said["latency_calls"] <= LATENCIES
    if SHORT:
        return
    known.setdefault("judge", {})[name] = said
    keep(known, True)
    assert said["slowest_ask_s"] <= SLOWEST_S
    assert said["pass"]
