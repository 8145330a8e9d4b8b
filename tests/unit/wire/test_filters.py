"""Filters and orders of run listings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.hub.store.rows import RunState
from prunefleet.infra.wire.graphql.filters import matcher, order, parse

from support.dashboard import run_row

RUNS = [
    run_row(1, name="a", config={"lr": 0.1, "ratio": {"stem": 0.5}}, summary={"loss": 3}, tags=("x", "y")),
    run_row(2, name="b", config={"lr": 0.2, "a.b": 1}, summary={"loss": 1}, state=RunState.RUNNING, group="g"),
    run_row(3, name="c", config={}, summary={"acc": {"max": 9}}, state=RunState.FAILED, sweep=None),
]


def found(document: dict[str, Any]) -> str:
    test = matcher(document)
    return "".join(run.name for run in RUNS if test(run))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "abc"),
        ({"state": "finished"}, "a"),
        ({"state": {"$in": ["finished", "failed"]}}, "ac"),
        ({"state": {"$ne": "finished"}}, "bc"),
        ({"$and": [{"sweep": "sweep001"}, {"config.lr": {"$gt": 0.1}}]}, "b"),
        ({"$or": [{"name": "a"}, {"name": "c"}]}, "ac"),
        ({"$not": {"name": "a"}}, "bc"),
        ({"$nor": [{"name": "a"}, {"state": "failed"}]}, "b"),
        ({"config.lr": {"$not": {"$lt": 0.2}}}, "bc"),
        ({"config.lr.value": 0.1}, "a"),
        ({"config.ratio.value.stem": 0.5}, "a"),
        ({"config.ratio.stem": {"$lte": 0.5}}, "a"),
        ({"config.a.b": 1}, "b"),
        ({"summary_metrics.loss": {"$gte": 1, "$lt": 3}}, "b"),
        ({"summary_metrics.acc.max": 9}, "c"),
        ({"summary_metrics.loss": {"$exists": False}}, "c"),
        ({"tags": "x"}, "a"),
        ({"tags": {"$in": ["y", "z"]}}, "a"),
        ({"tags": {"$nin": ["y"]}}, "bc"),
        ({"sweep": None}, "c"),
        ({"group": "g"}, "b"),
        ({"jobType": None}, "abc"),
        ({"name": {"$regex": "^[ab]$"}}, "ab"),
        ({"created_at": {"$gt": "2026-03-01T12:02:30"}}, "c"),
        ({"createdAt": {"$lte": "2026-03-01T12:02:00Z"}}, "ab"),
        ({"config.lr": {"$gt": "text"}}, ""),
        ({"nothing": 1}, ""),
    ],
)
def test_filters_select_as_mongo_does(document: dict[str, Any], expected: str) -> None:
    """Each operator, on each kind of column."""
    assert found(document) == expected


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"$where": []}, "where"),
        ({"$nor": {}}, "give it a list"),
        ({"$or": ["a"]}, "give it a JSON object"),
        ({"$not": 3}, "give it a JSON object"),
        ({"name": {"$where": 1}}, "where"),
        ({"name": {"$in": "a"}}, "give it a list"),
        ({"$or": {}}, "give it a list"),
        ({"name": {"$regex": "("}}, "regex"),
        ({"name": {"$regex": "a" * 201}}, "at most 200"),
    ],
)
def test_unknown_operators_are_named(document: dict[str, Any], message: str) -> None:
    """What is not served is refused by name instead of selecting the wrong runs."""
    with pytest.raises(Invalid, match=message):
        matcher(document)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_filters_are_json_objects(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(Invalid, match="filters:"):
        parse(text)


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)


@given(st.lists(VALUES, max_size=8), st.sampled_from("+-"))
def test_an_order_keeps_every_run_and_puts_missing_ones_last(values: list[Any], sign: str) -> None:
    """Sorting by a mixed, partly missing column loses nothing; runs without it come last either way."""
    runs = [run_row(n, summary={"m": value}) for n, value in enumerate(values)]
    sorted_runs = order(runs, f"{sign}summary_metrics.m")
    assert sorted(run.id for run in sorted_runs) == list(range(len(values)))
    missing = [run.summary["m"] is None for run in sorted_runs]
    assert missing == sorted(missing)
    numbers = [run.summary["m"] for run in sorted_runs if type(run.summary["m"]) in (int, float)]
    assert numbers == sorted(numbers, reverse=sign == "-")


def test_orders_may_be_several() -> None:
    """The first key decides, the second among equals; a sign is optional."""
    runs = [run_row(n, summary={"a": a, "b": b}) for n, (a, b) in enumerate([(1, 1), (0, 5), (1, 2), (0, 6)])]
    assert [run.id for run in order(runs, "summary_metrics.a,-summary_metrics.b")] == [3, 1, 2, 0]
    assert [run.id for run in order(runs, None)] == [0, 1, 2, 3]


def test_an_aggregated_metric_is_sorted_by_its_extremum() -> None:
    """`define_metric(summary="max")` makes a dictionary of a metric; its runs sort among those with a plain number."""
    runs = [run_row(n, summary={"m": value}) for n, value in enumerate([{"max": 3, "min": 1}, 2, {"max": 1, "min": 0}])]
    assert [run.id for run in order(runs, "-summary_metrics.m")] == [0, 1, 2]
    assert [run.id for run in order(runs, "+summary_metrics.m")] == [2, 0, 1]


@given(st.dictionaries(st.sampled_from(["name", "state", "config.lr", "tags"]), VALUES, max_size=3))
def test_not_is_the_complement(document: dict[str, Any]) -> None:
    """A filter and its $not divide the runs between them."""
    json.dumps(document)
    positive, negative = matcher(document), matcher({"$not": document})
    assert all(positive(run) != negative(run) for run in RUNS)
