"""The watch over a trial: seconds by stage, and which stage is under way."""

import pytest

from prunefleet.agent.host import progress as module
from prunefleet.agent.host.progress import StageWatch


def test_a_stage_within_another_takes_its_time_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the seconds of all stages are the trial's; behind it the outer stage is under way again."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    watch = StageWatch()
    with watch.during("train"):
        now = 2.0
        with watch.during("measure"):
            now = 7.0
            with watch.during("export"):
                now = 8.0
            assert watch.stage == "measure"
        assert watch.stage == "train"
        now = 11.0
        with watch.during("measure"):
            now = 12.0
    assert watch.seconds == {"export": 1.0, "measure": 6.0, "train": 5.0} and watch.stage == "train"
    with watch.during("parity"):
        now = 13.0
    assert watch.stage == "parity" and watch.seconds["parity"] == 1.0


def test_the_stage_that_failed_stays_the_one_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever explains a failure names the stage within which it happened, not the one around it."""
    watch = StageWatch()
    with pytest.raises(OSError), watch.during("train"), watch.during("measure"):
        raise OSError
    assert watch.stage == "measure" and set(watch.seconds) == {"train", "measure"}
