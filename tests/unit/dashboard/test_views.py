import json
import math
from dataclasses import replace
from itertools import permutations
from typing import Any, cast

import pytest

from prunefleet.infra.dashboard import text, views
from prunefleet.infra.dashboard.trials import question
from prunefleet.infra.dashboard.views import SweepView, sweep_view
from prunefleet.infra.dashboard.views_run import curves, group_bars, run_view, thin
from prunefleet.infra.hub.store.rows import RunState, SweepState

from support.dashboard import (
    GENERIC_YAML,
    START,
    WIDTHS,
    agent_row,
    by_name,
    generic_rows,
    run_row,
    sweep_row,
    trial_row,
    trial_rows,
)


@pytest.fixture
def view() -> SweepView:
    return sweep_view(sweep_row(), trial_rows(), [agent_row("agent-a"), agent_row("agent-b", "run008", "edge")])


def chart(view: SweepView, name: str) -> dict[str, Any]:
    return cast(dict[str, Any], view.charts[name])


def test_progress_counts_each_outcome(view: SweepView) -> None:
    """Ended trials count by outcome, live ones by state, and the bar is measured against run_cap."""
    assert view.progress.parts == (("scored", 6), ("diverged", 1), ("running", 1))
    assert (view.progress.ended, view.progress.live, view.progress.total) == (7, 1, 20)


def test_warm_points_are_told_apart_by_their_channels(view: SweepView) -> None:
    """Of the warm points the whole network is dense, what the uniform ladder gives uniform, the rest greedy."""
    assert [one.kind for one in view.trials[:6]] == ["dense", "uniform", "uniform", "greedy", "exploit", "explore"]


def test_best_is_the_best_score_of_an_ended_trial(view: SweepView) -> None:
    """The winner so far is the trial with the highest score, and it meets the limit."""
    assert view.best is not None
    assert (view.best.name, view.best_within) == ("run005", True)


def test_a_skipped_trial_counts_and_shows_its_latency() -> None:
    """It has ended, stands in the progress bar under its own name, and is neither best nor on the front."""
    summary = {"outcome": "skipped", "latency_ratio": 0.9, "latency_p10_ms": 1.8, "score": None, "score_bound": 0.1}
    view = sweep_view(sweep_row(), [*trial_rows(), run_row(9, summary=summary)])
    assert ("skipped", 1) in view.progress.parts and view.progress.ended == 8
    skipped = view.trials[-1]
    assert (skipped.ratio, skipped.ms, skipped.score, skipped.measured) == (0.9, 1.8, None, False)
    assert view.best is not None and view.best.name == "run005"
    assert "run009" not in by_name(chart(view, "tradeoff")["points"])


def test_what_a_trial_logged_on_its_way_does_not_win() -> None:
    """The score of a rung is no answer: a trial that was killed there is not the best."""
    lost = run_row(9, state=RunState.CRASHED, summary={"score": 0.99, "val_top1": 0.9, "latency_ratio": 0.1})
    view = sweep_view(sweep_row(), [*trial_rows(), lost])
    assert view.best is not None and view.best.name == "run005"


def test_best_without_a_feasible_trial_says_so() -> None:
    """While no trial meets the limit the best is shown as outside of it."""
    view = sweep_view(sweep_row(), [trial_row(1, (16, 16, 32), 0.90, 0.2, "explore")])
    assert view.best is not None
    assert not view.best_within


def test_best_so_far_never_gets_worse(view: SweepView) -> None:
    """The line of the best score climbs, one point per scored trial."""
    line = [value for _, value in chart(view, "best")["line"]]
    assert line == sorted(line)
    assert [number for number, _ in chart(view, "best")["line"]] == [1, 2, 3, 4, 5, 6]


def test_tradeoff_holds_every_measured_trial(view: SweepView) -> None:
    """Every trial with accuracy and latency is a point with its interval, its kind and whether it meets the limit."""
    points = by_name(chart(view, "tradeoff")["points"])
    assert len(points) == 6
    assert points["run001"]["kind"] == "dense"
    assert points["run003"]["within"] is False
    assert points["run005"]["lo"] < points["run005"]["x"] < points["run005"]["hi"]


@pytest.mark.parametrize("changes", [{"state": RunState.RUNNING}, {"outcome": "diverged"}])
def test_what_a_trial_logs_on_its_way_is_no_point(changes: dict[str, Any]) -> None:
    """A trial that still trains, or that came to nothing, has no place beside the measured ones."""
    row = trial_rows()[4]
    row = replace(row, summary={**row.summary, **changes}) if "outcome" in changes else replace(row, **changes)
    assert chart(sweep_view(sweep_row(), [row]), "tradeoff")["points"] == []


def test_front_holds_the_trials_that_none_dominates(view: SweepView) -> None:
    """The front runs from the fastest to the most accurate trial and leaves the dominated one out."""
    front = chart(view, "tradeoff")["front"]
    assert front == [[0.2, 0.9], [0.3, 0.905], [0.38, 0.924], [0.45, 0.926], [1.0, 0.93]]


def test_the_limit_is_drawn_below_the_dense_accuracy(view: SweepView) -> None:
    """The goal's limit is the dense accuracy less max_drop."""
    drawn = chart(view, "tradeoff")
    assert drawn["dense"] == pytest.approx(0.93)
    assert drawn["least_accuracy"] == pytest.approx(0.92)
    assert drawn["most_ratio"] is None


@pytest.mark.parametrize(("limit", "expected"), [("max_latency_ratio", 0.4), ("max_latency_ms", 0.4)])
def test_a_latency_limit_is_drawn_as_a_ratio(limit: str, expected: float) -> None:
    """A limit in milliseconds is read against the dense network's median, one as a ratio stands."""
    value = 0.4 if limit == "max_latency_ratio" else 0.84
    file = sweep_row().config_yaml.replace("fastest", "most_accurate").replace("max_drop: {value: 0.01}", "")
    row = sweep_row(
        file.replace("metric: {value: top1}", f"metric: {{value: top1}}\n      {limit}: {{value: {value}}}")
    )
    view = sweep_view(row, trial_rows())
    assert chart(view, "tradeoff")["most_ratio"] == pytest.approx(expected)
    assert by_name(chart(view, "tradeoff")["points"])["run002"]["within"] is False


def test_the_aim_is_one_sentence(view: SweepView) -> None:
    """The goal, the device and the precision are said in words."""
    assert view.aim == "Fastest, losing at most 1 pt of top1 on local at f32"


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"kind": "most_accurate", "max_latency_ratio": 0.5}, "Best top1 within 0.5 of the dense latency"),
        ({"kind": "tradeoff"}, "top1 × latency ratio^-0.07"),
        ({"kind": "pareto"}, "The whole front of top1 against latency"),
        ({"kind": "no such kind"}, "Maximise score"),
    ],
)
def test_each_kind_of_goal_has_its_sentence(block: dict[str, Any], sentence: str) -> None:
    """Each kind of goal is said in its own words; one that cannot be read leaves the metric."""
    parameters = {"objective": {"parameters": {key: {"value": value} for key, value in block.items()}}}
    config = {"metric": {"name": "score", "goal": "maximize"}, "parameters": parameters}
    assert views.aim(question(sweep_row(config=config))) == sentence


def test_agents_show_device_run_and_what_they_ended(view: SweepView) -> None:
    """An agent's device is what its runs say, its run is the one it holds, and ended runs are counted."""
    first, second = view.agents
    assert (first.device, first.run, first.finished) == ("cpu · Example CPU", None, 7)
    assert second.run is not None
    assert (second.run.name, second.host, second.finished) == ("run008", "edge", 0)


def test_a_sweep_without_pruning_shows_its_parameters() -> None:
    """A foreign sweep has the parameters that vary as columns, its own metric and direction, and no trade-off."""
    view = sweep_view(sweep_row(GENERIC_YAML), generic_rows())
    assert [column.heading for column in view.columns] == ["#", "Trial", "Outcome", "loss", "lr", "host", "took"]
    assert "tradeoff" not in view.charts
    assert view.best is not None
    assert view.best.score == 0.4
    assert [value for _, value in chart(view, "best")["line"]] == [0.9, 0.4, 0.4]


def test_the_winner_stands_beside_its_controls() -> None:
    """Once test was read the winner's line comes first, then dense, dense at default precision, uniform."""
    rows = trial_rows()
    rows[4] = replace(rows[4], summary={**rows[4].summary, "test_top1": 0.921})
    controls = [
        run_row(20 + i, name=f"c{i}", display_name=name, summary={"test_top1": 0.92, "latency_ratio": 0.4})
        for i, name in enumerate(("uniform", "dense"))
    ]
    lines = sweep_view(sweep_row(), rows, controls=controls).answer
    assert [line.label for line in lines] == [
        "winner, calm-river-5",
        "dense network",
        "uniform pruning, nearest latency",
    ]
    assert (lines[0].test, lines[0].ratio, lines[0].precision) == (0.921, 0.38, "f32")
    assert sweep_view(sweep_row(), trial_rows(), controls=controls).answer == ()


def test_an_empty_sweep_has_an_empty_page() -> None:
    """Before the first trial there is nothing to draw and nothing breaks."""
    view = sweep_view(sweep_row(state=SweepState.PENDING), [])
    assert view.best is None
    assert chart(view, "tradeoff")["points"] == []
    assert view.live


@pytest.mark.parametrize("config", [{}, {"parameters": None}, {"parameters": {"objective": 3}, "metric": "loss"}])
def test_a_strange_configuration_still_has_a_page(config: dict[str, Any]) -> None:
    """Whatever another tool put into a sweep's configuration, its page can be made."""
    assert sweep_view(sweep_row(config=config), generic_rows()).progress.ended == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, "NaN", True, None, [1.0]])
def test_what_is_no_number_is_not_drawn(value: object) -> None:
    """A metric that is no finite number leaves its trial out of the charts, and the charts stay valid JSON."""
    rows = [run_row(1, summary={"score": value, "val_top1": value, "latency_ratio": value})]
    view = sweep_view(sweep_row(), rows)
    assert chart(view, "best")["points"] == []
    assert chart(view, "tradeoff")["points"] == []
    json.dumps(view.charts, allow_nan=False)


def test_charts_are_valid_json(view: SweepView) -> None:
    """Chart data goes over the wire as strict JSON."""
    assert json.loads(json.dumps(view.charts, allow_nan=False))["tradeoff"]["metric"] == "top1"


def test_a_finished_sweep_is_not_live(view: SweepView) -> None:
    """A page polls quickly while anything may change, not once the sweep and its runs have ended."""
    assert view.live
    assert not sweep_view(sweep_row(state=SweepState.FINISHED), trial_rows()[:7]).live
    assert sweep_view(sweep_row(state=SweepState.FINISHED), trial_rows()).live


def test_an_agent_that_never_said_good_bye_is_gone_with_its_sweep() -> None:
    """A machine that was switched off says nothing more; while the sweep is live its heartbeat tells."""
    agents = [agent_row("agent-a")]
    assert [agent.state for agent in sweep_view(sweep_row(), trial_rows(), agents).agents] == ["idle"]
    ended = sweep_view(sweep_row(state=SweepState.FINISHED), trial_rows()[:7], agents)
    assert [agent.state for agent in ended.agents] == ["gone"]


def test_kept_channels_fit_into_a_cell(view: SweepView) -> None:
    """Few groups are listed, many are summed up."""
    assert views.kept_text(view.trials[1], WIDTHS) == "32·64·16", "stage1_conv, stage2_conv, stem"
    layers = {f"layer{index}": 8 for index in range(20)}
    many, none = (replace(view.trials[1], row=run_row(2, config={"kept": kept})) for kept in (layers, {}))
    assert views.kept_text(many, dict.fromkeys(many.kept, 16)) == "50 % of 20 groups"
    assert views.kept_text(none, {}) == ""


def test_a_searched_precision_stands_beside_the_channels() -> None:
    """Where all trials have one precision the head of the page says it; where it is searched each row does."""
    sweep = sweep_row()
    parameters = {**sweep.config["parameters"], "measure": {"parameters": {"precision": {"values": ["f32", "int8"]}}}}
    searching = replace(sweep, config={**sweep.config, "parameters": parameters})
    row = run_row(1, config={"kept": {"stem": 8}, "measure": {"precision": "int8"}})
    assert [views.kept_text(sweep_view(each, [row]).trials[0], {}) for each in (searching, sweep)] == ["8 int8", "8"]
    winner = replace(row, summary={"test_top1": 0.9})
    assert [line.precision for line in sweep_view(searching, [winner]).answer] == ["int8"]


def test_kept_channels_stand_in_one_order_whatever_the_client_sends() -> None:
    """Clients send a run's mappings in any order; two rows of a table are read beside each other."""
    sent = {"stem": 8, "stage2_conv": 24, "stage1_conv": 16}
    rows = [run_row(place, config={"kept": dict(order)}) for place, order in enumerate(permutations(sent.items()))]
    found = sweep_view(sweep_row(), rows)
    assert {views.kept_text(one, found.widths) for one in found.trials} == {"16·24·8"}
    assert list(found.widths) == sorted(sent)


def test_a_reason_is_told_with_its_interval() -> None:
    """What the controller expected is said in points and ratios."""
    why = {"kind": "explore", "drop": {"expected": 0.004, "lo": 0.001, "hi": 0.009}, "best_score": 0.5}
    row = replace(trial_rows()[4], why=why)
    trial = sweep_view(sweep_row(), [row]).trials[0]
    assert trial.reason == "expected drop 0.40 pt (0.10 pt to 0.90 pt), best score 0.5"


def test_a_reason_tells_what_is_expected_of_each_device() -> None:
    """By the devices' own names; other clients' words under that name are told as they are."""
    told = {"my_drop": {"expected": 0.41, "lo": 0.4, "hi": 0.43}, "local": {"expected": 0.5}, "odd": [1]}
    said = "expected latency ratio on my_drop 0.410 (0.400 to 0.430), expected latency ratio on local 0.500"
    for devices, reason in ((told, f"{said}, latency ratio on odd [1]"), ("both", "devices both"), ({}, "")):
        row = replace(trial_rows()[4], why={"kind": "explore", "devices": devices})
        assert sweep_view(sweep_row(), [row]).trials[0].reason == reason


def test_a_runs_page_has_groups_stages_and_latency() -> None:
    """A trial's page shows channels against the dense width, seconds per stage and latency beside the dense network."""
    view = run_view(trial_rows()[4], question(sweep_row()), number_in_sweep=5, full=WIDTHS)
    assert [(bar.name, bar.kept, bar.width) for bar in view.groups][1] == ("stage2_conv", 48, 128)
    assert view.groups[1].share == pytest.approx(0.375)
    assert view.stages == (("prune", 0.5), ("train", 20.0))
    assert (view.seconds, view.longest) == (20.5, 20.0)
    assert view.latency[1] == ("p50", "0.798 ms", "2.1 ms")
    assert view.failure is None


def test_a_run_on_several_devices_shows_each() -> None:
    """The ratio on each device stands below the slowest one's figures, and the sweep's line names them all."""
    row = trial_rows()[4]
    told = {"board2": {"latency_ratio": 0.5}, "board1": {"latency_ratio": 0.25}, "odd": {}, "none": 3}
    view = run_view(replace(row, summary=dict(row.summary) | {"devices": told}), question(sweep_row()))
    assert view.latency[-2:] == (("ratio on board1", "0.250", "1"), ("ratio on board2", "0.500", "1"))
    config: Any = json.loads(json.dumps(sweep_row().config))
    config["parameters"]["measure"] = {"parameters": {"device": {"value": ["board1", "local"]}}}
    assert question(replace(sweep_row(), config=config)).device == "board1 and local"


def test_widths_follow_from_the_ratio_where_no_sweep_tells() -> None:
    """A single run's dense width is what kept channels and ratio imply."""
    assert [bar.width for bar in group_bars(trial_rows()[4], {})] == [64, 128, 32]


def test_a_failure_is_told_with_its_stage() -> None:
    """A failed trial's kind, stage and message reach its page."""
    summary = {"failure_kind": "diverged", "failure_stage": "train", "failure_message": "loss is nan"}
    view = run_view(run_row(1, summary=summary, state=RunState.FAILED), question(sweep_row()))
    assert view.failure is not None
    assert (view.failure.kind, view.failure.stage, view.failure.message) == ("diverged", "train", "loss is nan")


def test_history_becomes_one_curve_per_metric() -> None:
    """Numeric metrics are drawn over their step, nested ones by dotted name; texts and bookkeeping are not."""
    rows = [
        {"_step": 0, "_runtime": 1.0, "loss": 1.0, "note": "x"},
        {"_step": 5, "loss": math.nan, "val": {"top1": 0.9}},
        {"_step": 7, "loss": 0.5},
    ]
    assert curves(rows) == (
        {"metric": "loss", "points": [(0.0, 1.0), (7.0, 0.5)]},
        {"metric": "val.top1", "points": [(5.0, 0.9)]},
    )


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 1234])
def test_long_curves_are_thinned_to_their_ends(length: int) -> None:
    """A long curve keeps at most the points asked for, among them its first and last."""
    found = [(float(index), 0.0) for index in range(length)]
    kept = thin(found, most=10)
    assert len(kept) <= 10
    assert kept[:1] == found[:1]
    assert kept[-1:] == found[-1:]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[32mgreen\x1b[0m\n", "green"),
        (" 10 %\r 50 %\r100 %\r", "100 %"),
        ("\x1b]0;title\x07text", "text"),
        ("tab\tstays", "tab\tstays"),
        ("bell\x07", "bell"),
        ("2026-03-01T12:00:05.059476 step 0", "12:00:05  step 0"),
        ("ERROR 2026-03-01T12:00:05.059476  5 %\r 9 %", "12:00:05   9 %"),
        ("", ""),
    ],
)
def test_console_lines_lose_terminal_control(line: str, shown: str) -> None:
    """Colours, titles and rewritten progress bars leave the text that a person saw last."""
    assert text.console_line(line) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.42, "0.4 s"), (58.4, "58 s"), (59.7, "1 min"), (192, "3 min 12 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    """A duration is told in its two largest units."""
    assert text.seconds(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234.5, "1234"), (0.012345, "0.0123"), (12.5, "12.5"), (3e9, "3.000e+09"), (None, "–")],
)
def test_numbers_have_four_digits(value: float | None, shown: str) -> None:
    """A number keeps what can be read at a glance."""
    assert text.plain(value) == shown


def test_times_are_told_in_utc() -> None:
    """A moment is UTC on the page, whatever zone it came in."""
    assert text.iso(START) == "2026-03-01T12:00:00Z"
    assert text.clock(None) == "–"
