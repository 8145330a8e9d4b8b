"""A table of real trials to judge searches on, docs/results/table.*: hundreds of candidates trained, all of them timed.

Training takes hours, may run beside other work, may be ended at any time, and goes on where it was on any machine: rows
are in docs/results/table.jsonl as soon as they are known. Timing wants a quiet host for some minutes: all candidates of
the table, and others on the device's own grid, where a sweep has its candidates. Searches are then judged on models
fitted to the table, docs/results/table-search.*, in half an hour; that too goes on where it was. `-k trained`,
`-k measured`, `-k own_grid` and `-k judged` run one pass alone; `TABLE_BENCH_SHORT=1` tries the bench itself on a tiny
network.
"""

import os

import pytest

from prunefleet.objective.errors import BadInput

from studies.table import search_report
from studies.table.passes import GRID, measure, train
from studies.table.players import PLAYERS
from studies.table.report import keep
from studies.table.search import CHECKS, GOALS, SEEDS, TRIALS, games, load, missing, save
from studies.table.study import table_of
from studies.table.surrogate import FAMILIES, facts_of
from studies.trials.passes import say

pytestmark = [pytest.mark.bench, pytest.mark.timeout(12 * 3600)]
SHORT = bool(os.environ.get("TABLE_BENCH_SHORT"))
NETWORK = "tiny" if SHORT else "resnet20"


def test_candidates_are_trained() -> None:
    """Each candidate is pruned, fine-tuned and judged; some are with several seeds."""
    try:
        train(NETWORK)
    finally:
        keep(NETWORK)


def test_latencies_are_measured() -> None:
    """All candidates are timed on this host against the dense network."""
    measure(NETWORK)
    keep(NETWORK)


def test_latencies_are_measured_on_the_devices_own_grid() -> None:
    """Candidates as `prunefleet plan` draws them are timed on this host against the dense network."""
    measure(NETWORK, GRID)
    keep(NETWORK)


def test_searches_are_judged() -> None:
    """Each search plays all its games on two kinds of surrogate, and none does better than the best known."""
    try:
        facts = facts_of(table_of(NETWORK))
    except BadInput as error:
        pytest.fail(str(error), pytrace=False)
    path = search_report.path_of(facts, NETWORK)
    known = load(path, facts)
    wanted = games(known["families"], *((2, CHECKS[0] + 2) if SHORT else (SEEDS, TRIALS)))
    for done, _ in enumerate(missing(facts, wanted, known), 1):
        save(path, known)
        if done % 10 == 0:
            search_report.keep(known, path)
            say(f"{NETWORK}: {len(search_report.unfinished(known, wanted))} of {len(wanted)} games are left")
    search_report.keep(known, path)
    print("\n" + path.with_suffix(".md").read_text())
    if not search_report.complete(facts, NETWORK):
        say(f"only a trial, fitted to {facts.counts['candidates']} of {facts.counts['of']} candidates: kept in {path}")
    assert len({FAMILIES[family].kind for family in known["families"]}) == 2
    for family in known["families"]:
        for goal in GOALS:
            for player in PLAYERS:
                found = search_report.verdict(known, family, goal, player)
                assert found["n"] == len({game.seed for game in wanted})
                assert min(search_report.regrets(known, family, goal, player, "recommended").values()) >= 0
