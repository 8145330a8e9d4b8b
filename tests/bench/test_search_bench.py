"""How the search fares on synthetic pruning problems beside W&B's engine and others: docs/results/search.*.

About two hours on two cores; may be ended at any time and goes on where it was. `-k` runs single cells. Instances are
drawn anew when there are no results yet. `SEARCH_BENCH_SHORT=1` tries the bench itself: one instance, few trials.
"""

import os
import secrets
from dataclasses import replace

import pytest
from support_search import CELLS, folder, load, missing
from support_search_report import RESULTS, keep, verdict

pytestmark = [pytest.mark.bench, pytest.mark.timeout(6 * 3600)]
SHORT = bool(os.environ.get("SEARCH_BENCH_SHORT"))
SLOWEST_S, LATENCIES = 5.0, 400


@pytest.mark.parametrize("name", CELLS)
def test_half_the_regret(name: str) -> None:
    """What is recommended has at most half the regret of W&B's, with few untrained latencies and quick suggestions."""
    folder()
    cell = replace(CELLS[name], budget=12, count=1) if SHORT else CELLS[name]
    known = {} if SHORT else load(RESULTS / "search.json")
    salt = known.setdefault("salt", secrets.token_hex(8))
    for key, record in missing(cell, known, salt, cell.count):
        known[key] = record
        keep(known, not SHORT)
    found = verdict(cell, known, cell.players[0])
    print(name, found)
    assert found["latencies"] <= LATENCIES
    if SHORT:
        return
    assert found["slowest_s"] <= SLOWEST_S
    assert found["ratio"] <= cell.ratio
    assert not cell.wins or (found["bound"] < cell.bound and found["wins"] >= cell.wins * found["n"])
