"""Early termination on the hub: which runs are asked to stop, how they end, and what is refused."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.early_stop import metric_in
from prunefleet.infra.hub.runs.runs import StreamPost
from prunefleet.infra.hub.runs.sweep_config import warnings
from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import RunState, SweepRow

from support.hub import SWEEP, Clock, make_agent, make_sweep
from support.runs import claimed, finish, found, log, start

QUEUE = "method: custom\nparameters: {}\n"
EARLY = SWEEP + "early_terminate: {type: hyperband, min_iter: 2}\n"


def race(hub: Hub, sweep: SweepRow, values: dict[str, Sequence[object]]) -> dict[str, str]:
    """One agent and one run for each, started, with these values logged; the runs' names."""
    names = {}
    for key, logged in values.items():
        names[key] = claimed(hub, make_agent(hub, sweep))
        start(hub, names[key])
        log(hub, names[key], logged)
    return names


def test_a_bad_run_is_asked_to_stop_and_a_good_one_is_not(hub: Hub, clock: Clock) -> None:
    """file_stream says so at once, the agent is told after the grace; the run is killed and its history kept."""
    sweep = make_sweep(hub, EARLY)
    names = race(hub, sweep, {"good": [1.0, 0.5], "bad": [2.0, "NaN"], "young": [9.0]})
    (stop,) = hub.early_stop.stop_early()
    assert (stop.name, stop.bracket) == (names["bad"], 2)
    assert log(hub, names["bad"], [1.0], 2).stop_requested_at is not None
    assert log(hub, names["good"], [1.0], 2).stop_requested_at is None
    assert hub.early_stop.stop_early() == [], "asked once"
    agent = hub.records.sweep_agents(sweep.id)[1]
    assert hub.heartbeat(agent.id, {names["bad"]}) is None
    clock.pass_by(hub.timeouts.stop_grace)
    assert hub.heartbeat(agent.id, {names["bad"]}) == {"type": "stop", "run_id": names["bad"]}
    ended = finish(hub, names["bad"], exit_code=255)
    assert (ended.state, ended.history_lines) == (RunState.KILLED, 3)
    assert str(ended.stop_reason).startswith("early_terminate: 2 after 2 values")


def test_a_run_that_stops_cleanly_is_finished(hub: Hub) -> None:
    """Who heeds the request and ends with exit code 0 has finished."""
    sweep = make_sweep(hub, EARLY)
    names = race(hub, sweep, {"good": [1.0, 0.5], "bad": [2.0, 2.0]})
    assert len(hub.early_stop.stop_early()) == 1
    assert finish(hub, names["bad"]).state is RunState.FINISHED


def test_what_has_ended_still_sets_the_bar(hub: Hub) -> None:
    """A later run is judged by the earlier ones, also after the hub was started again."""
    sweep = make_sweep(hub, EARLY)
    names = race(hub, sweep, {"good": [1.0, 0.5, 0.4]})
    finish(hub, names["good"])
    assert hub.early_stop.stop_early() == []
    names |= race(hub, sweep, {"bad": [2.0]})
    assert hub.early_stop.stop_early() == []
    log(hub, names["bad"], [2.0], 1)
    assert [stop.name for stop in Hub(hub.store, clock=hub.clock).early_stop.stop_early()] == [names["bad"]]


@pytest.mark.parametrize("text", [SWEEP, EARLY + "controller: {type: local}\n", EARLY + "scheduler: {engine: wandb}\n"])
def test_only_what_the_hub_was_asked_to_stop_is_stopped(hub: Hub, text: str) -> None:
    """Without early_terminate, or where the sweep's own controller sees to it, the hub stops nothing."""
    sweep = make_sweep(hub, text)
    for value in (1.0, 2.0):
        name = hub.enqueue(sweep.id, {"lr": value}).name
        assert claimed(hub, make_agent(hub, sweep)) == name
        start(hub, name)
        log(hub, name, [value] * 3)
    assert hub.early_stop.stop_early() == []


def test_a_look_that_fails_is_told_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch goes on after any failure, and does not fill the log with it."""
    sweep = make_sweep(hub, EARLY)
    names = race(hub, sweep, {"good": [1.0, 0.5], "bad": [2.0, 2.0]})
    caplog.set_level(
        "WARNING", "prunefleet.infra.hub.runs.early_stop"
    )  # whatever a library has made of logging in this process
    with monkeypatch.context() as broken:
        broken.setattr(
            "prunefleet.infra.controller.stopping.hyperband.Hyperband.to_stop", lambda *_args, **_more: 1 / 0
        )
        hub.early_stop.watch()
        hub.early_stop.watch()
    assert [record.message for record in caplog.records] == [
        "early termination did not look: ZeroDivisionError: division by zero"
    ]
    hub.early_stop.watch()
    assert found(hub, names["bad"]).stop_requested_at is not None


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"val": {"loss": 2}}, 2.0),
        ({"val.loss": 3.5}, 3.5),
        ({"val.loss": "Infinity"}, float("inf")),
        ({"val": 3}, None),
        ({"val.loss": True}, None),
        ({"val.loss": "low"}, None),
        ({}, None),
    ],
)
def test_a_metric_is_found_plain_or_nested(row: dict[str, Any], value: float | None) -> None:
    """A name with dots is a key as it is, or a path; what is no number is not the metric."""
    assert metric_in(row, "val.loss") == value


def test_a_metric_that_json_escapes_is_found(hub: Hub) -> None:
    """Whatever the metric is called, its rows are read."""
    sweep = make_sweep(hub, EARLY.replace("name: loss", 'name: "Verlust \u00fc"'))
    for value in (1.0, 2.0):
        name = claimed(hub, make_agent(hub, sweep))
        start(hub, name)
        lines = [json.dumps({"Verlust \u00fc": value})] * 2
        hub.stream("local", "demo", name, StreamPost({Stream.HISTORY: (0, lines)}))
    assert len(hub.early_stop.stop_early()) == 1


def test_a_run_started_again_is_free(hub: Hub) -> None:
    """A run that its user starts again after it was stopped has no stop request and no reason left."""
    sweep = make_sweep(hub, EARLY)
    names = race(hub, sweep, {"good": [1.0, 0.5], "bad": [2.0, 2.0]})
    hub.early_stop.stop_early()
    finish(hub, names["bad"], exit_code=1)
    again = start(hub, names["bad"])
    assert (again.state, again.stop_requested_at, again.stop_reason) == (RunState.RUNNING, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + "early_terminate: {type: envelope}", "early_terminate.type: got 'envelope'"),
        (SWEEP + "early_terminate: {type: hyperband}", "early_terminate.min_iter: got None"),
        ("method: random\nparameters: {a: {value: 1}}\nearly_terminate: {type: hyperband, min_iter: 1}", "metric.name"),
        (QUEUE + "metric: {name: a, goal: up}\nearly_terminate: {type: hyperband, min_iter: 1}", "metric.goal: got"),
    ],
)
def test_early_terminate_that_cannot_be_is_refused(hub: Hub, text: str, message: str) -> None:
    """The sweep is not made, and the field is named."""
    with pytest.raises(Invalid, match=message):
        make_sweep(hub, text)
    assert hub.records.sweeps("local", "demo") == []


@pytest.mark.parametrize(
    ("early", "expected"),
    [
        ({"min_iter": 3}, []),
        ({"min_iter": 3, "max_iter": 9}, ["early_terminate.max_iter: left out beside min_iter without s"]),
        ({"min_iter": 3, "max_iter": 9, "s": 1}, ["early_terminate.min_iter: left out beside max_iter and s"]),
        ({"min_iter": 3, "patience": 9}, ["early_terminate.patience: not a setting of hyperband; left out"]),
    ],
)
def test_what_is_left_out_is_told(early: dict[str, Any], expected: list[str]) -> None:
    """A setting that changes nothing is a warning when the sweep is made."""
    assert warnings({"early_terminate": {"type": "hyperband", **early}}) == expected
