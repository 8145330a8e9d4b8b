"""A storm over a fleet of namespaces: real hub, agents and measurements, of which some are always killed or cut off."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.storm.fleet import TRIALS
from studies.storm.run import long_storm, small_storm
from studies.storm.study import Fault

pytestmark = pytest.mark.netns
SEED = 6


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells what happens while it does, for whoever waits."""
    began = time.monotonic()

    def told(text: str) -> None:
        with capsys.disabled():
            print(f"{time.monotonic() - began:7.1f} s {text}", flush=True)

    return told


# `make test` has kills of a trial, an agent and the hub in test_up_tiny.py, and of the hub in test_hub_kill*.py.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_storm_loses_nothing(tmp_path: Path, say: Callable[[str], None]) -> None:
    """A process killed, a host cut off and a hub killed in a sweep on two devices: all is there, and once."""
    faults = (Fault("kill", TRIALS[0], draw=0.9), Fault("cut", "edge1", 8), Fault("power", "hub", 2))
    say(str(small_storm(tmp_path, say, 3, faults)))


@pytest.mark.slow
@pytest.mark.timeout(4200)
def test_a_long_storm_loses_nothing(tmp_path: Path, say: Callable[[str], None]) -> None:
    """24 trials while hosts and the hub are killed, stopped, cut off and slowed: all is there, once, and in time."""
    say(str(long_storm(tmp_path, say, 24, SEED)))
