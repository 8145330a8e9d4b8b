"""Early termination of runs that could not become the best even if all went well for them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.controller.stopping.hyperband import RunHistory
from prunefleet.infra.controller.stopping.optimistic import Optimistic
from prunefleet.infra.hub.runs.sweep_config import stop_rule
from prunefleet.objective.errors import BadInput

# Four finished runs of three values; from the first value on they gained 0.2 to 0.5, from the second 0.1 to 0.2.
DONE = [[0.3, 0.6, 0.8], [0.2, 0.5, 0.6], [0.4, 0.5, 0.6], [0.1, 0.3, 0.4]]
VALUES = st.floats(-10, 10)


def judged(running: Sequence[Sequence[float]], done: Sequence[Sequence[float]] = DONE) -> list[RunHistory]:
    found = [RunHistory(f"done{i}", history, running=False, finished=True) for i, history in enumerate(done)]
    return found + [RunHistory(f"r{i}", history, running=True) for i, history in enumerate(running)]


def stopped(running: Sequence[Sequence[float]], rule: Optimistic | None = None, maximise: bool = True) -> list[str]:
    found = (rule or Optimistic()).to_stop(judged(running), maximise=maximise)
    return [stop.name for stop in found]


def test_a_run_that_cannot_catch_up_is_stopped() -> None:
    """The largest gain of a finished run from there on would not bring it to the best; one that it would goes on."""
    assert stopped([[0.29], [0.31], [0.2, 0.59], [0.2, 0.61]]) == ["r0", "r2"]


def test_the_reason_tells_what_was_hoped_for() -> None:
    """The value, what it could become, and the best run's."""
    (stop,) = Optimistic().to_stop(judged([[0.2, 0.55]]), maximise=True)
    assert str(stop) == ("early_terminate: 0.55 after 2 values may become 0.75 at best, and the best run has 0.8")


def test_a_run_beyond_experience_goes_on() -> None:
    """Worse than every finished run was at that time, longer than any of them, or too few of them: nothing is known."""
    assert stopped([[0.05], [0.1, 0.2, 0.3, 0.3]]) == []
    assert stopped([[0.29]], Optimistic(min_runs=5)) == []
    assert stopped([[0.29]], Optimistic(min_iter=2)) == []


def test_values_that_are_not_finite_say_nothing() -> None:
    """Neither of a finished run nor of a running one."""
    assert stopped([[float("nan")], []]) == []
    runs = judged([[0.29]], [*DONE[:3], [0.1, float("inf"), 0.9]])
    assert Optimistic().to_stop(runs, maximise=True) == []


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=4, max_size=8), st.data())
def test_what_finished_would_not_have_been_stopped_as_the_best(done: list[list[float]], data: st.DataObject) -> None:
    """The run that ended best is never given up on at any of its values, whichever way is better."""
    maximise = data.draw(st.booleans())
    best = (max if maximise else min)(done, key=lambda history: history[-1])
    for count in (1, 2):
        assert Optimistic().to_stop(judged([best[:count]], done), maximise=maximise) == []


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("hyperband", "early_terminate"),
        ({"type": "envelope"}, "early_terminate.type"),
        ({"min_iter": 3}, "early_terminate.type"),
        ({"type": "optimistic", "min_iter": 0}, "early_terminate.min_iter"),
        ({"type": "optimistic", "min_runs": 1}, "early_terminate.min_runs"),
    ],
)
def test_what_cannot_be_right_is_named(block: object, field: str) -> None:
    """A setting that makes no sense is refused by its name."""
    with pytest.raises(BadInput) as refused:
        stop_rule({"early_terminate": block})
    assert refused.value.field == field


def test_a_sweep_may_ask_for_it() -> None:
    """By its type; its settings have defaults."""
    assert stop_rule({"early_terminate": {"type": "optimistic"}}) == Optimistic(1, 4)
    assert stop_rule({"early_terminate": {"type": "optimistic", "min_iter": 2, "min_runs": 9}}) == Optimistic(2, 9)
