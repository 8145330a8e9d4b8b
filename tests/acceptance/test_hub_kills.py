"""The hub killed with -9 again and again, at random moments under load: what it acknowledged is there, always."""

import random
import time
from pathlib import Path

import pytest

from support.fleet import Fleet, assert_kept
from support.hub import HubProcess
from support.wait import wait_for

AGENTS = 4
READ = """query S($name: String!) { project(name: "load") { sweep(sweepName: $name) { state runs { edges { node {
    name state historyLineCount } } } } } }"""


def kill_often(folder: Path, kills: int, seed: int) -> None:
    """A sweep of real requests under kills; raises AssertionError where anything acknowledged is lost."""
    dice, trials = random.Random(seed), 2 * kills
    # An answer that was lost with the hub is told again; how long a restart takes here is no matter of the agent's.
    with HubProcess(folder, timing={"issue_grace": 60}) as hub:
        fleet = Fleet(hub.url, hub.api_key, seed)
        sweep = fleet.sweep(trials)
        fleet.start(sweep, AGENTS)
        try:
            for _ in range(kills):
                target = fleet.count + dice.randint(1, 25)
                wait_for(lambda: fleet.count >= target or fleet.faults, 60, 0.002)  # noqa: B023 - called at once
                time.sleep(dice.uniform(0, 0.02))  # not to wait for anything: the moment is to be any
                ledger = fleet.ledger()
                hub.kill9()
                hub.restart()
                assert_kept(folder / "hub", ledger)
            fleet.join(120)
            assert_complete(hub, fleet, sweep, trials)
        finally:
            fleet.stop()


def assert_complete(hub: HubProcess, fleet: Fleet, sweep: str, trials: int) -> None:
    """The sweep has ended with each trial of its grid once, whole."""
    told, ledger = hub.query(READ, name=sweep)["project"]["sweep"], fleet.ledger()
    runs = [edge["node"] for edge in told["runs"]["edges"]]
    assert told["state"] == "FINISHED"
    assert [run["state"] for run in runs] == ["finished"] * trials
    assert sorted(ledger.given.values()) == list(range(trials))
    assert ledger.finished == {run["name"] for run in runs} == ledger.files.keys()
    assert {run["name"]: run["historyLineCount"] for run in runs} == {n: len(r) for n, r in ledger.rows.items()}
    assert_kept(hub.folder / "hub", ledger)


def test_nothing_acknowledged_is_lost_in_3_kills(tmp_path: Path) -> None:
    """After each kill all that was acknowledged is there, agents carry on, and the sweep ends with its exact trials."""
    kill_often(tmp_path, 3, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_300_kills(tmp_path: Path) -> None:
    """The same, at many more moments."""
    # `make test` has three kills of another seed, above.
    kill_often(tmp_path, 300, seed=4)
