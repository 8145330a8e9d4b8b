"""Early termination: brackets as W&B documents them, and who is given up on at each."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.controller.stopping.hyperband import Hyperband, RunHistory
from prunefleet.objective.errors import BadInput

VALUES = st.floats(-1e6, 1e6, width=32)
HISTORIES = st.lists(st.lists(VALUES, max_size=30), min_size=1, max_size=12)
RULES = st.builds(
    Hyperband,
    min_iter=st.integers(1, 9),
    eta=st.floats(1.1, 5.0),
    strict=st.booleans(),
)


def runs_of(histories: Sequence[Sequence[float]], running: bool = True) -> list[RunHistory]:
    return [RunHistory(f"r{number}", history, running) for number, history in enumerate(histories)]


def stopped(rule: Hyperband, histories: Sequence[Sequence[float]], maximise: bool = False) -> list[str]:
    return [stop.name for stop in rule.to_stop(runs_of(histories), maximise=maximise)]


@pytest.mark.parametrize(
    ("config", "brackets"),
    [
        ({"min_iter": 3}, [3, 9, 27, 81]),
        ({"min_iter": 3, "eta": 2}, [3, 6, 12, 24, 48, 96]),
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 27, "s": 9}, [1, 3, 9]),
        ({"max_iter": 27, "s": 2, "min_iter": 5}, [3, 9]),
        ({"max_iter": 27, "min_iter": 5}, [5, 15, 45]),
        ({"min_iter": 1, "eta": 1.5}, [1, 2, 3, 5, 7, 11, 17, 25, 38, 57, 86]),
    ],
)
def test_brackets_are_those_of_the_reference(config: dict[str, Any], brackets: list[int]) -> None:
    """min_iter counts up by eta, max_iter back by s brackets; 27 with s 2 gives 9 and 3, as W&B's page says."""
    assert Hyperband.from_config({"type": "hyperband", **config}).brackets(100) == brackets


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"type": "hyperband"}, "early_terminate.min_iter"),
        ({"type": "hyperband", "max_iter": 9}, "early_terminate.s"),
        ({"type": "hyperband", "max_iter": 2, "s": 2}, "early_terminate.max_iter"),
        ({"type": "hyperband", "min_iter": 0}, "early_terminate.min_iter"),
        ({"type": "hyperband", "min_iter": 2.5}, "early_terminate.min_iter"),
        ({"type": "hyperband", "min_iter": math.inf}, "early_terminate.min_iter"),
        ({"type": "hyperband", "min_iter": True}, "early_terminate.min_iter"),
        ({"type": "hyperband", "max_iter": 9, "s": "2"}, "early_terminate.s"),
        ({"type": "hyperband", "min_iter": 3, "eta": 1}, "early_terminate.eta"),
        ({"type": "hyperband", "min_iter": 3, "eta": math.nan}, "early_terminate.eta"),
        ({"type": "hyperband", "min_iter": 3, "strict": "yes"}, "early_terminate.strict"),
    ],
)
def test_what_cannot_be_right_is_named(config: object, field: str) -> None:
    """A setting that makes no sense is refused by its name."""
    with pytest.raises(BadInput) as refused:
        Hyperband.from_config(config)
    assert refused.value.field == field


def test_the_bracket_counts_values_not_their_place() -> None:
    """The third value decides at bracket 3, not the fourth: the published engine was off by one there."""
    rule = Hyperband(min_iter=3, strict=True)
    assert stopped(rule, [[9, 9, 1], [1, 1, 9]]) == ["r1"]
    assert stopped(rule, [[9, 9], [1, 1, 9]]) == []


def test_a_run_that_ran_ahead_is_judged_where_it_has_company() -> None:
    """A bad run that logged far beyond all others before anybody looked is stopped all the same."""
    assert stopped(Hyperband(min_iter=3), [[2.0] * 100, [1.0] * 5]) == ["r0"]
    assert stopped(Hyperband(min_iter=3), [[1.0] * 100, [2.0] * 5]) == ["r1"]


def test_a_late_bloomer_is_kept_unless_strict() -> None:
    """By default the best value so far speaks for a run, strictly the one at its bracket alone."""
    histories = [[1.0], [5.0, 0.5], [5.0]]
    assert stopped(Hyperband(min_iter=1, eta=3), histories) == ["r2"]
    assert stopped(Hyperband(min_iter=1, eta=3, strict=True), histories) == ["r1", "r2"]


@pytest.mark.parametrize(("count", "going_on"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 3), (10, 4)])
def test_the_best_part_goes_on(count: int, going_on: int) -> None:
    """Of n runs at a bracket the best n/eta go on, rounded up, so at least one."""
    gone = stopped(Hyperband(min_iter=1, strict=True), [[float(number)] for number in range(count)])
    assert gone == [f"r{number}" for number in range(going_on, count)]


def test_a_diverged_run_is_the_worst_of_all() -> None:
    """A metric that is not a number counts as logged and loses to every other."""
    rule = Hyperband(min_iter=1)
    for lost in (math.nan, math.inf, -math.inf):
        assert stopped(rule, [[lost], [1e9]]) == ["r0"]
        assert stopped(rule, [[lost], [-1e9]], maximise=True) == ["r0"]
    assert stopped(rule, [[math.nan], [math.nan]]) == []


def test_a_stop_says_why() -> None:
    """The reason names the value, the bracket, and what went on, in the metric's own direction."""
    (stop,) = Hyperband(min_iter=2).to_stop(runs_of([[0.9, 0.8], [0.1, 0.2]]), maximise=True)
    assert str(stop) == "early_terminate: 0.2 after 2 values, where the best part went on at 0.8"


def judged_at(rule: Hyperband, histories: Sequence[Sequence[float]], length: int) -> int:
    """The last bracket that a run of that length shares with another; 0 where there is none."""
    shared = [b for b in rule.brackets(length) if sum(len(history) >= b for history in histories) > 1]
    return max(shared, default=0)


@given(RULES, HISTORIES, st.booleans())
def test_the_best_run_of_a_bracket_goes_on(rule: Hyperband, histories: list[list[float]], maximise: bool) -> None:
    """Whatever the rule, the best of those judged at a bracket is kept, and who has no company is left alone."""
    gone = set(stopped(rule, histories, maximise))
    at = {n: judged_at(rule, histories, len(history)) for n, history in enumerate(histories)}
    assert all(at[int(name[1:])] for name in gone)
    for bracket in set(at.values()) - {0}:
        reached = [n for n, history in enumerate(histories) if len(history) >= bracket]
        best = (max if maximise else min)(reached, key=lambda n: histories[n][bracket - 1])
        assert f"r{best}" not in gone or at[best] > bracket


@given(RULES, HISTORIES, st.booleans())
def test_strict_stops_at_least_as_many(rule: Hyperband, histories: list[list[float]], maximise: bool) -> None:
    """Strict gives up on every run that the default does."""
    kind = Hyperband(min_iter=rule.min_iter, eta=rule.eta)
    hard = Hyperband(min_iter=rule.min_iter, eta=rule.eta, strict=True)
    assert set(stopped(kind, histories, maximise)) <= set(stopped(hard, histories, maximise))


@given(RULES, HISTORIES)
def test_maximising_is_minimising_the_negative(rule: Hyperband, histories: list[list[float]]) -> None:
    """The direction changes nothing but the sign, and the order of the runs nothing at all."""
    negative = [[-value for value in history] for history in histories]
    assert stopped(rule, histories) == stopped(rule, negative, maximise=True)
    backwards = rule.to_stop(runs_of(histories)[::-1], maximise=False)
    assert sorted(stop.name for stop in backwards) == sorted(stopped(rule, histories))


@given(RULES, HISTORIES)
def test_what_has_ended_is_judged_by_and_not_stopped(rule: Hyperband, histories: list[list[float]]) -> None:
    """Ended runs set the thresholds; only running ones are given up on."""
    ended = [RunHistory("ended", history, False) for history in histories]
    assert rule.to_stop(ended, maximise=False) == []
    gone = rule.to_stop([*ended, RunHistory("new", [2e6] * 30, True)], maximise=False)
    bracket = judged_at(rule, [*histories, [2e6] * 30], 30)
    company = 1 + sum(len(history) >= bracket for history in histories)
    assert bool(gone) == (bracket > 0 and math.ceil(company / rule.eta - 1e-9) < company)
