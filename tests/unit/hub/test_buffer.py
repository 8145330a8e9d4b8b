"""What lies ready for agents while a controller is slow, learns nothing or repeats itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from prunefleet.infra.controller.contract import Suggestion
from prunefleet.infra.hub.suggest.controller_process import ControllerProcess
from prunefleet.infra.hub.suggest.suggester import ProcessSuggester

from support.suggest import ListHub, taken
from support.wait import wait_for


@pytest.fixture
def hub() -> ListHub:
    return ListHub()


class SlowChild(ControllerProcess):
    """Answers numbered points, `pause` seconds for each, and remembers how many it was asked for."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause, self.counts, self.number = pause, list[int](), 0

    def start(self) -> None:
        """Nothing to start."""

    def ask(self, request: Any) -> dict[str, Any]:
        self.counts.append(request["count"])
        time.sleep(self.pause * request["count"])
        numbers = range(self.number, self.number + request["count"])
        self.number += request["count"]
        given = [{"params": {"a": n}, "config": {"a": n}, "why": {}} for n in numbers]
        return {"id": request["id"], "suggestions": given, "exhausted": None, "note": None}


@pytest.fixture
def slow(hub: ListHub) -> Iterator[tuple[SlowChild, ProcessSuggester]]:
    child = SlowChild(0.2)
    thinking = ProcessSuggester(hub.as_hub(), process=child)
    thinking.start()
    yield child, thinking
    thinking.stop()


def test_the_first_suggestions_of_a_slow_controller_do_not_wait_for_the_last(
    hub: ListHub, slow: tuple[SlowChild, ProcessSuggester]
) -> None:
    """A buffer for many idle agents is filled a second's worth at a time, from the first suggestion on."""
    child, suggester = slow
    sweep = hub.add({"method": "random", "parameters": {"a": {"min": 0, "max": 10_000}}})
    hub.idle(sweep, 20)
    suggester.poke(sweep)
    wait_for(lambda: sum(child.counts) >= 20)
    assert child.counts[0] == 1
    assert max(child.counts) <= 5


def test_a_search_that_learns_nothing_is_asked_for_many_at_once(hub: ListHub) -> None:
    """Answers of a random sweep ask for nothing, nor do runs that begin until half is gone; a changed file does."""
    child = SlowChild(0.0)
    suggester = ProcessSuggester(hub.as_hub(), process=child)
    sweep = hub.add({"method": "random", "metric": {"name": "loss"}, "parameters": {"a": {"min": 0, "max": 10_000}}})
    hub.idle(sweep, 8)
    suggester.start()
    try:
        suggester.poke(sweep)
        wait_for(lambda: (buffer := suggester._buffers.get(sweep)) is not None and buffer.filled_for == 8)
        made = child.number
        for _ in range(4):
            hub.end(sweep, hub.begin(sweep, taken(suggester, sweep)), loss=1.0)
            suggester.poke(sweep)
        wait_for(lambda: not suggester._poked)
        assert child.number == made
        taken(suggester, sweep)
        wait_for(lambda: child.number > made)
        assert child.counts[-1] == 5
        wait_for(lambda: suggester._buffers[sweep].filled_for == 8)
        made = child.number
        hub.sweeps[sweep] = replace(hub.sweeps[sweep], config_yaml="changed")
        suggester.poke(sweep)
        wait_for(lambda: child.number == made + 8)
    finally:
        suggester.stop()


class Repeating(SlowChild):
    """Asks for the same candidate again and again."""

    def ask(self, request: Any) -> dict[str, Any]:
        answer = super().ask(request)
        before = sum(trial["params"].get("a") == 1 for trial in request["trials"])
        given = {"params": {"a": 1}, "config": {"a": 1, "seed": before}, "why": {}, "repeat": before}
        return answer | {"suggestions": [given]}


def test_another_run_of_the_same_candidate_is_handed_out(hub: ListHub) -> None:
    """A suggestion to repeat a candidate counts as taken until that very run has begun, not since the first one."""
    thinking = ProcessSuggester(hub.as_hub(), process=Repeating(0.0))
    sweep = hub.add({"method": "bayes", "metric": {"name": "m"}, "parameters": {"a": {"values": [1, 2]}}})
    thinking.start()
    try:
        first = taken(thinking, sweep)
        hub.begin(sweep, first)
        second, third = taken(thinking, sweep), taken(thinking, sweep)
    finally:
        thinking.stop()
    assert [each.config["seed"] for each in (first, second, third)] == [0, 1, 2]


def first_ready(suggester: ProcessSuggester, sweep: int) -> int:
    """The number of the newest suggestion that lies ready; -1 while what was made before fills the gap."""
    with suggester._change:
        ready = suggester._buffers[sweep].ready
        return int(ready[0].params["a"]) if ready else -1


def test_older_suggestions_fill_the_gap_while_newer_ones_are_made(
    hub: ListHub, slow: tuple[SlowChild, ProcessSuggester]
) -> None:
    """After a new result there is always something to take: the newest first, what was made before it after that."""
    child, suggester = slow
    sweep = hub.add({"method": "bayes", "metric": {"name": "loss"}, "parameters": {"a": {"min": 0, "max": 10_000}}})
    hub.idle(sweep, 4)
    run = hub.begin(sweep, taken(suggester, sweep))
    wait_for(lambda: len(suggester._buffers[sweep].ready) == 4)
    before = child.number
    hub.end(sweep, run, loss=1.0)
    suggester.poke(sweep)
    wait_for(lambda: first_ready(suggester, sweep) >= before)
    got = [suggester.take(sweep) for _ in range(3)]
    assert all(isinstance(each, Suggestion) for each in got)
