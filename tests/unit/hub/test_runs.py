"""What runs say of themselves, and that saying it twice changes nothing."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import RunState

from support.hub import SWEEP, Clock, first_user, local_hub, make_agent, make_sweep


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with local_hub(tmp_path, Clock()) as hub:
        yield hub


def begin(hub: Hub, name: str = "r1", host: str | None = "h") -> int:
    return hub.begin_run(first_user(hub), RunChange(project="p", name=name, host=host))[0].id


def say(hub: Hub, post: StreamPost, name: str = "r1") -> RunState:
    return hub.stream("local", "p", name, post).state


@settings(max_examples=25)
@given(st.data())
def test_history_is_the_same_however_often_it_is_sent(data: st.DataObject) -> None:
    """Retries, overlaps and repetitions of chunks leave each line once, in order."""
    rows = [f'{{"_step": {n}, "x": {n}}}' for n in range(data.draw(st.integers(1, 30)))]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=5)) | {0, len(rows)})
    chunks = [(low, rows[low:high]) for low, high in pairwise(cuts)]
    again = [chunks[i] for i in data.draw(st.lists(st.integers(0, len(chunks) - 1), max_size=5))] if chunks else []
    with TemporaryDirectory() as folder, local_hub(Path(folder), Clock()) as hub:
        run_id = begin(hub)
        for chunk in [*chunks, *again]:
            say(hub, StreamPost(lines={Stream.HISTORY: chunk}))
        assert hub.run_lines.texts(run_id, Stream.HISTORY) == rows
        assert hub.records.run_by_id(run_id).history_lines == len(rows)
        assert [row["x"] for row in hub.run_lines.history(run_id, after_line=1)] == list(range(1, len(rows)))


def test_a_history_sent_again_after_itself_is_stored_once(hub: Hub) -> None:
    """`wandb sync` of a run that is here in part appends its whole history: what is new alone is added."""
    run_id = begin(hub)
    rows = [f'{{"_step": {n}, "x": {n or "NaN"}}}' for n in range(6)]
    say(hub, StreamPost(lines={Stream.HISTORY: (0, rows[:4])}))
    again = [f'{{"x": {n or "NaN"}, "_step": {n}}}' for n in range(6)]
    for _ in range(2):
        say(hub, StreamPost(lines={Stream.HISTORY: (4, again)}))
    assert hub.run_lines.texts(run_id, Stream.HISTORY) == [*rows[:4], *again[4:]]
    say(hub, StreamPost(lines={Stream.HISTORY: (10, ['{"_step": 0, "x": 7}'])}))  # a run begun anew under its id
    assert [row["x"] for row in hub.run_lines.history(run_id)][-1] == 7


def test_console_lines_may_be_rewritten(hub: Hub) -> None:
    """A progress bar rewrites an earlier line; the later text stands."""
    run_id = begin(hub)
    say(hub, StreamPost(lines={Stream.CONSOLE: (0, ["a", "10 %"])}))
    say(hub, StreamPost(lines={Stream.CONSOLE: (1, ["100 %", "done"])}))
    assert hub.run_lines.console(run_id) == ["a", "100 %", "done"]
    assert hub.run_lines.console(run_id, last=1) == ["done"]


def test_the_end_of_a_run_stays(hub: Hub) -> None:
    """A finished run is not moved by repeated, late or contrary news."""
    run_id = begin(hub)
    assert say(hub, StreamPost(complete=True)) is RunState.FINISHED
    for late in (StreamPost(), StreamPost(preempting=True), StreamPost(complete=True, exit_code=1)):
        assert say(hub, late) is RunState.FINISHED
    begin(hub, host=None)
    run = hub.records.run_by_id(run_id)
    assert (run.state, run.exit_code) == (RunState.FINISHED, 0)


def test_a_repeated_last_message_does_not_fail_a_preempted_run(hub: Hub) -> None:
    """The client repeats a message whose answer was lost; the run stays queued."""
    begin(hub)
    say(hub, StreamPost(preempting=True))
    for _ in range(2):
        assert say(hub, StreamPost(complete=True, exit_code=1)) is RunState.PREEMPTED


@pytest.mark.parametrize(("code", "expected"), [(0, RunState.FINISHED), (1, RunState.FAILED), (255, RunState.KILLED)])
def test_exit_codes_tell_how_a_run_ended(hub: Hub, code: int, expected: RunState) -> None:
    """0 is finished, 255 is Ctrl-C or a stop, anything else failed."""
    begin(hub)
    assert say(hub, StreamPost(complete=True, exit_code=code)) is expected


def test_a_run_started_again_goes_on_where_it_was(hub: Hub) -> None:
    """`wandb.init` on an ended run makes it running again and tells how many lines there are."""
    run_id = begin(hub)
    say(hub, StreamPost(lines={Stream.HISTORY: (0, ['{"_step": 0}'])}, complete=True, exit_code=1))
    run, inserted = hub.begin_run(first_user(hub), RunChange(project="p", name="r1", host="h"))
    assert (run.id, run.state, run.history_lines, inserted) == (run_id, RunState.RUNNING, 1, False)
    assert run.finished_at is None


def test_config_is_plain_to_readers_and_whole_to_the_client(hub: Hub) -> None:
    """Readers see values without W&B's wrappers and its own keys; the stored config keeps both."""
    config = {"lr": {"value": 0.1}, "_wandb": {"value": {"t": {}}}, "nest": {"value": {"a": 1}}}
    run, _ = hub.begin_run(first_user(hub), RunChange(project="p", name="r", host="h", config=config))
    assert run.config == {"lr": 0.1, "nest": {"a": 1}}
    assert run.raw_config == config


def test_a_change_leaves_the_state_alone(hub: Hub) -> None:
    """The public API edits names, tags and notes of a finished run."""
    run_id = begin(hub)
    say(hub, StreamPost(complete=True))
    run = hub.revise_run(run_id, RunChange(display_name="best", tags=["a"], notes="n", summary={"x": 1}))
    assert (run.display_name, run.tags, run.notes, run.summary) == ("best", ("a",), "n", {"x": 1})
    assert run.state is RunState.FINISHED


def test_a_deleted_run_is_gone(hub: Hub) -> None:
    """Deleting forgets the lines too, and the client is told that the run is gone."""
    run_id = begin(hub)
    say(hub, StreamPost(lines={Stream.HISTORY: (0, ["{}"])}))
    hub.run_edits.delete(run_id, with_artifacts=False)
    assert hub.run_lines.texts(run_id, Stream.HISTORY) == []
    with pytest.raises(Missing, match="may have been deleted"):
        say(hub, StreamPost())


def test_a_run_without_a_sweep_is_set_by_its_user(hub: Hub) -> None:
    """A crashed or failed run can wait for its user again, for as long as it takes, and a waiting one be given up."""
    run_id = begin(hub)
    say(hub, StreamPost(complete=True, exit_code=1))
    assert hub.run_edits.set_state(run_id, "pending").state is RunState.PENDING
    hub.clock.pass_by(1e6)
    assert hub.reap() == 0
    failed = hub.run_edits.set_state(run_id, "failed")
    assert failed.state is hub.run_edits.set_state(run_id, "failed").state is RunState.FAILED
    with pytest.raises(Invalid, match="pending or failed"):
        hub.run_edits.set_state(run_id, "finished")
    begin(hub)
    say(hub, StreamPost(complete=True))
    with pytest.raises(Conflict, match="finished and cannot become pending"):
        hub.run_edits.set_state(run_id, "pending")


def test_a_sweep_alone_moves_its_runs(hub: Hub) -> None:
    """A run of a sweep is not set from outside, as on wandb.ai."""
    sweep = make_sweep(hub)
    hub.heartbeat(make_agent(hub, sweep), set())
    (run,) = hub.listing.sweep_runs(sweep.id)
    with pytest.raises(Conflict, match="belongs to a sweep"):
        hub.run_edits.set_state(run.id, "failed")


def test_alerts_are_kept_with_their_run(hub: Hub) -> None:
    """What a run alerts its user of is there, newest first, and goes with the run."""
    run_id = begin(hub)
    for title in ("first", "second"):
        hub.run_edits.alert(run_id, title, "text", "WARN")
    assert [(alert.title, alert.severity) for alert in hub.run_edits.alerts(run_id)] == [
        ("second", "WARN"),
        ("first", "WARN"),
    ]
    hub.run_edits.delete(run_id, with_artifacts=False)
    assert hub.run_edits.alerts(run_id) == []
    with pytest.raises(Missing):
        hub.run_edits.alert(run_id, "late", "text", "INFO")


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 129, "a\nb", "%2e"])
def test_run_ids_that_no_address_can_carry_are_refused(hub: Hub, name: str) -> None:
    """A run id becomes part of addresses and folders."""
    with pytest.raises(Invalid, match="run id: got"):
        begin(hub, name)


def test_unknown_entities_and_sweeps_are_named(hub: Hub) -> None:
    """The refusal names what was asked for and what would be right."""
    user = first_user(hub)
    with pytest.raises(Missing, match=r"entity: got 'nobody'.*set WANDB_ENTITY"):
        hub.begin_run(user, RunChange(entity="nobody", project="p", name="r"))
    with pytest.raises(Missing, match=r"sweep: got 'gone'.*unset WANDB_SWEEP_ID"):
        hub.begin_run(user, RunChange(project="p", name="r", sweep="gone"))
    with pytest.raises(Invalid, match="project: got 'a/b'"):
        hub.begin_run(user, RunChange(project="a/b", name="r"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "config: not YAML"),
        ("3", "config: write a mapping"),
        ("method: clever\nparameters: {a: {value: 1}}", "method"),
        (SWEEP + "controller: {type: remote}", r"controller: got \{'type': 'remote'\}"),
        (SWEEP + "scheduler: optuna", "scheduler: got 'optuna'"),
        (SWEEP + "scheduler: {engine: ax}\ncontroller: {type: local}", "scheduler: .* leave it out"),
        (SWEEP + "controller: {type: local}\nrun_cap: 0", "run_cap: got 0"),
        ("method: random\nparameters: {a: {distribution: wild}}", "a"),
    ],
)
def test_sweeps_that_cannot_be_searched_are_refused_at_once(hub: Hub, text: str, message: str) -> None:
    """A sweep is checked when it is made, not when its agents wait."""
    with pytest.raises(Invalid, match=message) as refused:
        make_sweep(hub, text)
    assert hub.records.sweeps("local", "demo") == []
    assert "Traceback" not in str(refused.value)


def test_a_sweep_can_be_renamed(hub: Hub) -> None:
    """Names and configuration change without the state."""
    sweep = make_sweep(hub)
    changed = hub.revise_sweep(sweep.id, SweepChange(display_name="nice", config_yaml=SWEEP + "run_cap: 9"))
    assert (changed.display_name, changed.config["run_cap"], changed.state) == ("nice", 9, sweep.state)
