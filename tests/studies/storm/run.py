"""A sweep in a storm from its first trial to its account, and what share of a calm fleet's work it got done."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studies.storm.account import assert_apart, assert_exact, at_rest, runs
from studies.storm.fleet import DEVICES, TRIALS, Fleet, fleet
from studies.storm.study import DENSE, RECOVERY_S, Fault, Lane, Pace, Storm, drawn
from support.wait import wait_for

Say = Callable[[str], None]
ENDED = ("finished", "failed", "killed", "crashed")
CALM = 12  # trials


def begun(found: Fleet, trials: int) -> None:
    """A sweep, with an agent on every machine."""
    path = found.sweep(trials)
    found.queues |= dict.fromkeys(TRIALS, path)
    for label in (*TRIALS, *DEVICES):
        found.machines[label].kill_all()
        found.start(label)


def ends(found: Fleet) -> list[float]:
    """When trials of the sweep ended."""
    trials = runs(found, found.queues[TRIALS[0]])
    return sorted(run.finished_at or 0.0 for run in trials if run.state in ENDED)


def per_minute(at: Sequence[float]) -> float:
    """Trials a minute that ended at these seconds, from the first one's end on and while every machine had one."""
    full = at[: 1 - len(TRIALS)]
    return 60 * (len(full) - 1) / (full[-1] - full[0])


def judged(found: Fleet, storm: Storm, trials: int) -> dict[str, Any]:
    """All is waited for; then every bar but the throughput, which other work on this machine would move."""
    wait_for(lambda: len(ends(found)) == trials and at_rest(found), 400, every=1)
    told = assert_exact(found, trials)
    assert not storm.broken, storm.broken
    assert all(each.seconds <= RECOVERY_S for each in storm.recoveries), storm.recoveries
    return {**told, "sittings": assert_apart(found)}


def small_storm(folder: Path, say: Say, trials: int, faults: Sequence[Fault]) -> dict[str, Any]:
    """A few trials while these faults happen, a few seconds after each other."""
    with fleet(folder) as found:
        begun(found, trials)
        wait_for(lambda: any(run.state == "running" for run in runs(found, found.queues[TRIALS[0]])), 120, every=0.5)
        lanes = [Lane(iter([fault]), time.time() + 4 * place, 0) for place, fault in enumerate(faults)]
        storm = Storm(found, lanes, trials, say)
        with told_in_full(found):
            storm.blow(lambda: len(storm.recoveries) == len(faults), 180)
            assert len(storm.recoveries) == len(faults), storm.broken
            return judged(found, storm, trials)


def long_storm(folder: Path, say: Say, trials: int, seed: int, calm: int = 0, pace: Pace = DENSE) -> dict[str, Any]:
    """A sweep while faults go on and on; after a sweep of `calm` trials without any, where that is asked.

    Faults begin when the first trial has ended: until then the fleet fills, and nothing can end.
    """
    with fleet(folder) as found, told_in_full(found):
        usual = calm_rate(found, calm, say) if calm else None
        begun(found, trials)
        wait_for(lambda: ends(found), 120, every=0.5)
        lanes = [
            Lane(iter([fault for turn in turns for fault in turn]), time.time() + gap / 3, gap)
            for turns, gap in zip(drawn(seed, pace.longest), pace.gaps, strict=True)
        ]
        storm = Storm(found, lanes, trials, say)
        began = time.time()
        storm.blow(lambda: len(ends(found)) > trials - len(TRIALS), 3000)
        seconds = time.time() - began
        told = judged(found, storm, trials)
        rates = {"calm_per_minute": usual, "storm_per_minute": per_minute(ends(found))}
        recovered = [
            (each.fault.kind, each.fault.machine, each.fault.seconds, each.seconds) for each in storm.recoveries
        ]
        return {**told, **rates, **storm.shares(), "seconds": seconds, "recovered": recovered}


def calm_rate(found: Fleet, trials: int, say: Say) -> float:
    """Trials a minute without faults."""
    begun(found, trials)
    wait_for(lambda: len(ends(found)) == trials and at_rest(found), 900, every=1)
    rate = per_minute(ends(found))
    say(f"calm: {rate:.2f} trials a minute")
    return rate


class told_in_full:  # noqa: N801 - reads as the statement that it is
    """Print every machine's last lines where the block fails."""

    def __init__(self, found: Fleet) -> None:
        self._found = found

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(self._found.logs())
