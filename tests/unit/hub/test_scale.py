"""Lists of runs on a folder of some size: what they read, not how long they take."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.dashboard.views import DRAWN, SHOWN, sweep_view
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs import listing
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import RunRow, SweepRow
from prunefleet.infra.hub.store.stored_run import StoredRun
from prunefleet.infra.wire.graphql import filters
from prunefleet.infra.wire.graphql.execute import Context
from prunefleet.infra.wire.user_operations import select

from studies.hub.scale import fill
from support.hub import Clock, first_user, local_hub

SIZES, ROWS = (600, 200, 200), 20


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("scale"), Clock()) as made:
        fill(made.store, "p", SIZES, ROWS)
        yield made


@pytest.fixture
def sweep(hub: Hub) -> SweepRow:
    return hub.records.find_sweep("local", "p", "p000")


class Built:
    """Counts the rows that are made into runs, and the configs that are parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = self.configs = 0
        build, parse = statements._run, StoredRun._wrapped.func

        def built(row: Any) -> StoredRun:
            self.rows += 1
            return build(row)

        def parsed(run: StoredRun) -> Any:
            self.configs += 1
            return parse(run)

        monkeypatch.setattr(statements, "_run", built)
        monkeypatch.setattr(StoredRun._wrapped, "func", parsed)

    def since(self) -> tuple[int, int]:
        found = self.rows, self.configs
        self.rows = self.configs = 0
        return found


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    return Built(monkeypatch)


def test_a_sweeps_runs_are_read_once(hub: Hub, sweep: SweepRow, built: Built) -> None:
    """After the first look only what changed is read, and the rest are the same objects."""
    first = hub.listing.sweep_runs(sweep.id)
    built.since()
    assert hub.listing.sweep_runs(sweep.id) == first
    assert built.since() == (0, 0)
    changed = first[7]
    hub.revise_run(changed.id, RunChange(notes="seen"))
    built.since()
    second = hub.listing.sweep_runs(sweep.id)
    assert built.since() == (1, 0)
    assert [new is old for new, old in zip(second, first, strict=True)].count(False) == 1
    assert second[7].notes == "seen"
    assert second[7].config == changed.config


def test_rows_that_change_keep_what_was_parsed(hub: Hub, sweep: SweepRow, built: Built) -> None:
    """A sign of life does not cost another reading of the run's config."""
    run = hub.listing.sweep_runs(sweep.id)[3]
    config = run.config
    hub.stream("local", "p", run.name, StreamPost(lines={Stream.HISTORY: (ROWS, ['{"_step": 20}'])}))
    built.since()
    again = hub.listing.sweep_runs(sweep.id)[3]
    assert built.since() == (1, 0)
    assert again.config is config
    assert again.history_lines == ROWS + 1


def test_a_deleted_run_is_gone_from_the_list(hub: Hub) -> None:
    """Deleting one and making another at once leaves no ghost."""
    sweep = hub.records.find_sweep("local", "p", "p001")
    runs = hub.listing.sweep_runs(sweep.id)
    hub.run_edits.delete(runs[0].id, with_artifacts=False)
    hub.begin_run(first_user(hub), RunChange("local", "p", "newcomer", sweep="p001", host="h"))
    assert [run.name for run in hub.listing.sweep_runs(sweep.id)] == [*(run.name for run in runs[1:]), "newcomer"]
    hub.run_edits.delete(hub.listing.sweep_runs(sweep.id)[-1].id, with_artifacts=False)
    assert len(hub.listing.sweep_runs(sweep.id)) == len(runs) - 1


def test_what_is_kept_has_a_bound(hub: Hub, sweep: SweepRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeps that were asked for least recently are let go when the rows are too many."""
    monkeypatch.setattr(listing, "MOST_ROWS", 700)
    for name in ("p000", "p001", "p002"):
        found = hub.records.find_sweep("local", "p", name)
        assert len(hub.listing.sweep_runs(found.id)) == hub.listing.sweep_version(found.id)[0]
    assert sum(len(kept.runs) for kept in hub.listing._kept.values()) <= 700


def test_what_is_derived_is_made_again_after_a_change_only(hub: Hub, sweep: SweepRow) -> None:
    """A figure of a whole sweep is computed once for each state of its runs."""
    asked: list[int] = []

    def count(runs: Any) -> int:
        asked.append(len(runs))
        return len(runs)

    assert [hub.listing.derived(sweep.id, "count", count) for _ in range(3)] == [600] * 3
    assert len(asked) == 1
    hub.revise_run(hub.listing.sweep_runs(sweep.id)[0].id, RunChange(notes="again"))
    assert hub.listing.derived(sweep.id, "count", count) == 600
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("wanted", "order"),
    [({}, "+created_at"), ({"sweep": "p000"}, "-created_at"), ({"$and": [{"state": {"$in": ["finished"]}}]}, None)],
)
def test_a_page_reads_its_own_rows_alone(hub: Hub, built: Built, wanted: dict[str, Any], order: str | None) -> None:
    """A page of 50 among 1,000 runs makes 50 rows and parses no config; counting them makes none."""
    project = hub.records.project("local", "p")
    assert project is not None
    found = select(Context(hub, first_user(hub), ""), project, json.dumps(wanted), order)
    built.since()
    assert len(found) >= 600
    assert built.since() == (0, 0)
    assert len(found[100:150]) == 50
    assert built.since() == (50, 0)


texts = st.sampled_from(["finished", "failed", "p000", "p001", "s1r00003", "trial-4", "x"])
conditions = st.one_of(
    texts,
    st.lists(texts, max_size=3).map(lambda values: {"$in": values}),
    texts.map(lambda value: {"$eq": value}),
    texts.map(lambda value: {"$ne": value}),
    st.none(),
)
columns = st.sampled_from(["name", "state", "sweep", "displayName", "display_name", "group", "jobType", "tags"])
clauses = st.dictionaries(columns, conditions, max_size=2)
documents = st.one_of(clauses, st.lists(clauses, max_size=3).map(lambda parts: {"$and": parts}))


@lru_cache(maxsize=1)
def _all_runs(hub: Hub, project_id: int, _changes: int) -> list[RunRow]:
    return list(hub.listing.runs(project_id, {}))


@given(document=documents, order=st.sampled_from([None, "created_at", "+createdAt", "-created_at", "-name"]))
def test_the_database_decides_as_the_filter_does(hub: Hub, document: dict[str, Any], order: str | None) -> None:
    """Whatever part of a filter or an order is left to SQL, the runs and their order are the same."""
    project = hub.records.project("local", "p")
    assert project is not None
    everything = _all_runs(hub, project.id, hub.changes)
    matches = filters.matcher(document)
    expected = filters.order([run for run in everything if matches(run)], order)
    found = select(Context(hub, first_user(hub), ""), project, json.dumps(document), order)
    assert [run.name for run in found] == [run.name for run in expected]
    assert len(found) == len(expected)


def test_a_long_sweeps_page_is_cut(hub: Hub, sweep: SweepRow, built: Built) -> None:
    """The table has the newest trials and the best one; configs of trials that are not shown are not read."""
    runs = hub.listing.sweep_runs(sweep.id)
    built.since()
    view = sweep_view(sweep, runs)
    assert len(view.trials) == 600
    assert len(view.shown) in (SHOWN, SHOWN + 1)
    assert view.best in view.shown
    assert built.since()[1] <= SHOWN + 3


def test_a_long_curve_keeps_its_steps(hub: Hub, sweep: SweepRow) -> None:
    """A curve of too many points is thinned, and still shows each improvement and the last value."""
    few = hub.listing.sweep_runs(sweep.id)
    runs = few * (1 + 3 * DRAWN // len(few))
    chart: Any = sweep_view(sweep, runs).charts["best"]
    assert len(chart["points"]) <= DRAWN + 50
    least = min(run.summary["loss"] for run in runs)
    assert chart["line"][-1] == [len(runs), pytest.approx(least)]
