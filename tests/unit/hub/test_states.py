"""The tables of states, and that the documentation shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.hub.store.rows import RunState, SweepState
from prunefleet.infra.hub.store.states import (
    ENDED_STATES,
    LIVE_STATES,
    MAX_RETRIES,
    QUEUED_STATES,
    RunEvent,
    after,
    ending,
    may_become,
    run_table_markdown,
    sweep_table_markdown,
)

from support.paths import ROOT

HUB_PAGE = ROOT / "docs" / "hub.md"


def test_every_state_is_live_queued_or_ended() -> None:
    """No state is forgotten and none is two things."""
    assert set(RunState) == LIVE_STATES | QUEUED_STATES | ENDED_STATES
    assert len(LIVE_STATES) + len(QUEUED_STATES) + len(ENDED_STATES) == len(RunState)


@given(st.sampled_from(sorted(ENDED_STATES - {RunState.CRASHED})), st.sampled_from(RunEvent))
def test_what_has_ended_only_a_new_start_moves(state: RunState, event: RunEvent) -> None:
    """Finished, failed and killed runs stay so unless their user starts them again, or says that they will."""
    assert after(state, event) is state or event in (RunEvent.STARTED, RunEvent.RESET)


@given(
    st.sampled_from(sorted(LIVE_STATES)),
    st.integers(1, 255) | st.none(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
def test_every_bad_end_leaves_the_live_states(
    state: RunState, code: int | None, stopped: bool, blamed: bool, retries: int
) -> None:
    """Nothing stays live for ever: a bad end or a loss always ends a run or queues it."""
    if state is RunState.PENDING and code is not None:
        return  # a process that never started has no exit code
    event = ending(state, code, stop_requested=stopped, host_is_blamed=blamed, retries=retries)
    assert after(state, event) not in LIVE_STATES


@given(st.sampled_from(sorted(LIVE_STATES)), st.integers(0, 5))
def test_a_host_is_forgiven_as_often_as_promised(state: RunState, retries: int) -> None:
    """A vanished run is queued again MAX_RETRIES times, then given up."""
    event = ending(state, None, stop_requested=False, host_is_blamed=True, retries=retries)
    assert event is (RunEvent.REQUEUED if retries < MAX_RETRIES else RunEvent.GAVE_UP)


def test_a_late_end_does_not_touch_a_pending_run() -> None:
    """A pending run has not started, so a success told of it is an earlier attempt's."""
    assert after(RunState.PENDING, RunEvent.COMPLETED) is RunState.PENDING


@pytest.mark.parametrize(
    ("state", "wanted", "allowed"),
    [
        (SweepState.PENDING, SweepState.PAUSED, False),
        (SweepState.RUNNING, SweepState.PAUSED, True),
        (SweepState.PAUSED, SweepState.RUNNING, True),
        (SweepState.FINISHED, SweepState.RUNNING, True),
        (SweepState.CANCELED, SweepState.RUNNING, False),
        (SweepState.CANCELED, SweepState.CANCELED, True),
    ],
)
def test_sweeps_move_as_the_table_says(state: SweepState, wanted: SweepState, allowed: bool) -> None:
    """Pause and resume freely, come back from FINISHED, never from CANCELED."""
    assert may_become(state, wanted) is allowed


def test_the_page_shows_the_tables() -> None:
    """docs/hub.md holds the tables as `python -m prunefleet.infra.hub.store.states` prints them."""
    page = HUB_PAGE.read_text(encoding="utf-8")
    assert run_table_markdown() in page
    assert sweep_table_markdown() in page
