"""The hub's suggester with a real controller process, over a hub of plain lists."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from prunefleet.infra.controller.contract import Exhausted, Suggestion
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.store.rows import ProjectRow, RunState, SweepRow, SweepState
from prunefleet.infra.hub.suggest.controller_process import ControllerProcess
from prunefleet.infra.hub.suggest.input import profile_of
from prunefleet.infra.hub.suggest.suggester import ProcessSuggester

from support.controller import Problem, kept_of, sweep_config
from support.suggest import NOW, ListHub, grid_config, run_row, taken
from support.wait import wait_for


@pytest.fixture
def hub() -> ListHub:
    return ListHub()


class Kept(ControllerProcess):
    """A controller process that outlives its suggesters: its libraries take a second to load."""

    def stop(self) -> None:
        """Leave it running."""

    def end(self) -> None:
        """Stop it after all."""
        super().stop()


@pytest.fixture(scope="module")
def process() -> Iterator[Kept]:
    """One for all tests of this file: what it answers follows from the request alone."""
    made = Kept()
    yield made
    made.end()


@pytest.fixture
def suggester(hub: ListHub, process: Kept) -> Iterator[ProcessSuggester]:
    thinking = ProcessSuggester(hub.as_hub(), process=process)
    thinking.start()
    yield thinking
    thinking.stop()


def ready(suggester: ProcessSuggester, sweep: int) -> list[Suggestion]:
    with suggester._change:
        buffer = suggester._buffers.get(sweep)
        return list(buffer.ready) if buffer else []


def lying(suggester: ProcessSuggester, sweep: int) -> list[Suggestion]:
    """What a heartbeat could be given, older suggestions included."""
    with suggester._change:
        buffer = suggester._buffers[sweep]
        return [*buffer.ready, *buffer.older]


def test_nobody_pokes(hub: ListHub, suggester: ProcessSuggester) -> None:
    """A sweep that starts is found without a word, and its first suggestion lies ready before an agent asks."""
    sweep = hub.add(grid_config(), SweepState.PENDING)
    wait_for(lambda: ready(suggester, sweep), 60)
    assert taken(suggester, sweep).config == {"a": 1, "b": {"c": 7}}


def test_grid_to_its_end(hub: ListHub, suggester: ProcessSuggester) -> None:
    """Each combination is handed out once, the ones just taken included, and then word that none is left."""
    sweep = hub.add(grid_config())
    runs = [hub.begin(sweep, taken(suggester, sweep)) for _ in range(3)]
    assert sorted(run.config["a"] for run in runs) == [1, 2, 3]
    assert isinstance(wait_for(lambda: suggester.take(sweep)), Exhausted)


def test_as_many_as_idle_agents(hub: ListHub, suggester: ProcessSuggester) -> None:
    """As many distinct suggestions lie ready as agents are idle."""
    sweep = hub.add(grid_config())
    hub.idle(sweep, 2)
    suggester.poke(sweep)
    wait_for(lambda: len(ready(suggester, sweep)) == 2, 60)
    first, second = taken(suggester, sweep), taken(suggester, sweep)
    assert first.config != second.config


class Stuck(ControllerProcess):
    """Starts no process, and answers nothing until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.stopped = threading.Event(), threading.Event()

    def start(self) -> None:
        """Nothing to start."""

    def ask(self, request: Any) -> dict[str, Any]:
        self.asked.set()
        self.stopped.wait(60)
        return {"id": request["id"], "error": "stopped"}

    def stop(self) -> None:
        self.stopped.set()


def test_take_does_not_wait(hub: ListHub) -> None:
    """A heartbeat is answered while the controller still thinks of its first suggestion."""
    child = Stuck()
    thinking = ProcessSuggester(hub.as_hub(), process=child)
    sweep = hub.add(sweep_config())
    thinking.start()
    try:
        thinking.poke(sweep)
        assert child.asked.wait(60)
        assert thinking.take(sweep) is None and not child.stopped.is_set()
    finally:
        thinking.stop()


def test_refreshed_by_results(hub: ListHub, suggester: ProcessSuggester) -> None:
    """What lies ready when results arrive is made anew; until then the old one may be handed out."""
    parameters = {"x": {"min": 0.0, "max": 1.0}}
    config = {"method": "bayes", "metric": {"name": "loss", "goal": "minimize"}, "parameters": parameters}
    sweep = hub.add(config)
    runs = [hub.begin(sweep, taken(suggester, sweep)) for _ in range(6)]
    old = wait_for(lambda: ready(suggester, sweep), 60)
    for run in runs:
        hub.end(sweep, run, loss=(run.config["x"] - 0.3) ** 2)
    suggester.poke(sweep)
    assert lying(suggester, sweep)
    fresh = wait_for(lambda: [each for each in ready(suggester, sweep) if each not in old], 60)
    assert fresh[0].why["nearest"]["trial"] in {run.name for run in runs}


def test_killed_child(hub: ListHub, suggester: ProcessSuggester) -> None:
    """A controller killed with -9 is started again, and the sweep goes on where it was."""
    sweep = hub.add(grid_config())
    first = hub.begin(sweep, taken(suggester, sweep))
    pid = wait_for(lambda: suggester.process.pid)
    os.kill(pid, signal.SIGKILL)
    second = hub.begin(sweep, taken(suggester, sweep))
    third = hub.begin(sweep, taken(suggester, sweep))
    assert len({run.config["a"] for run in (first, second, third)}) == 3
    assert suggester.process.pid != pid


def test_unused_suggestion_comes_back(
    hub: ListHub, suggester: ProcessSuggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suggestion that was taken and became no run is made again after a while."""
    monkeypatch.setattr("prunefleet.infra.hub.suggest.suggester.LOST_S", 0.2)
    sweep = hub.add(grid_config())
    lost = taken(suggester, sweep)
    runs = [hub.begin(sweep, taken(suggester, sweep)) for _ in range(3)]
    assert lost.config in [run.config for run in runs]


def test_bad_sweep_says_why(hub: ListHub, suggester: ProcessSuggester) -> None:
    """A sweep that cannot be searched has one line saying why; another one beside it is served."""
    parameters = {"x": {"min": 0.0, "max": 1.0}}
    bad, good = hub.add(grid_config(parameters=parameters)), hub.add(grid_config())
    suggester.poke(bad)
    problem = wait_for(lambda: suggester.advice(bad).problem, 60)
    assert "parameters.x" in problem
    assert "method grid" in problem
    assert suggester.take(bad) is None
    taken(suggester, good)


def test_paused_sweep_rests(hub: ListHub, suggester: ProcessSuggester) -> None:
    """A paused sweep is not thought about; once it runs again it is."""
    sweep = hub.add(grid_config(), SweepState.PAUSED)
    other = hub.add(grid_config())
    suggester.poke(sweep)
    taken(suggester, other)
    assert not ready(suggester, sweep)
    hub.sweeps[sweep] = replace(hub.sweeps[sweep], state=SweepState.RUNNING)
    taken(suggester, sweep)


def test_sweeps_that_others_search_rest(hub: ListHub, suggester: ProcessSuggester) -> None:
    """Nothing is suggested for a sweep with a local controller, a scheduler or a queue alone."""
    others = [
        hub.add(grid_config(**more))
        for more in ({"controller": {"type": "local"}}, {"scheduler": {"engine": "optuna"}}, {"method": "custom"})
    ]
    for sweep in others:
        suggester.poke(sweep)
    taken(suggester, hub.add(grid_config()))
    assert not any(ready(suggester, sweep) or suggester.advice(sweep).problem for sweep in others)


def test_prior_runs_are_known_and_do_not_count(hub: ListHub, process: Kept) -> None:
    """A grid does not repeat what was run before, and its run_cap is for new runs alone."""
    before = [run_row(9, {"a": 2}, RunState.FINISHED, {"loss": 1.0})]
    thinking = ProcessSuggester(hub.as_hub(), prior=lambda _sweep: before, process=process)
    sweep = hub.add(grid_config(run_cap=2))
    thinking.start()
    try:
        runs = [hub.begin(sweep, taken(thinking, sweep)) for _ in range(2)]
        assert [run.config["a"] for run in runs] == [1, 3]
    finally:
        thinking.stop()


def test_profile_is_used_and_its_lack_told(hub: ListHub, process: Kept) -> None:
    """With a profile the first suggestions are its warm points; without it the search goes on and says so."""
    profile = Problem.seeded(1).profile()
    documents = {1: profile.to_json(), 2: {"version": 99}}

    def read(sweep: SweepRow) -> dict[str, Any]:
        return documents[sweep.id]

    thinking = ProcessSuggester(hub.as_hub(), read, process)
    with_profile, without = hub.add(sweep_config()), hub.add(sweep_config())
    thinking.start()
    try:
        first = taken(thinking, with_profile)
        assert kept_of(first) == profile.space.kept(profile.warm[0])
        assert first.why["kind"] == "warm"
        assert taken(thinking, without).why["kind"] == "explore"
        assert "without a profile" in (thinking.advice(without).problem or "")
    finally:
        thinking.stop()


def test_the_run_that_the_models_expect_most_of_is_told(hub: ListHub, process: Kept) -> None:
    """Once results are in, also for a sweep that ended before anybody asked; what was skipped is not recommended."""
    problem = Problem.seeded(1)
    document = problem.profile().to_json()
    config = sweep_config()
    config["parameters"]["profile"] = {"value": "latest"}
    running = hub.add(config)
    thinking = ProcessSuggester(hub.as_hub(), lambda _sweep: document, process)
    thinking.start()
    try:
        assert thinking.advice(running) == Advice()
        for number in range(3):
            found = taken(thinking, running)
            row = hub.begin(running, found)
            trial = problem.trial(row.name, found.params, kept_of(found), number)
            scored = {"score": trial.value, "metric_drop": trial.drop} if number else {}
            hub.end(
                running, row, latency_ratio=trial.latency_ratio, outcome="scored" if number else "skipped", **scored
            )
            thinking.poke(running)
        told = wait_for(lambda: thinking.advice(running).trial and thinking.advice(running), 60)
        assert told.trial in ("r2", "r3")
        assert told.expected["latency_ratio"]["lo"] < told.expected["latency_ratio"]["hi"]
    finally:
        thinking.stop()
    hub.sweeps[running] = replace(hub.sweeps[running], state=SweepState.FINISHED)
    later = ProcessSuggester(hub.as_hub(), lambda _sweep: document, process)
    later.start()
    try:
        assert wait_for(lambda: later.advice(running).trial, 60) in ("r2", "r3")
        assert later.take(running) is None
    finally:
        later.stop()


class OneArtifact:
    """A hub with one profile."""

    def project(self, entity: str, name: str) -> ProjectRow:
        return ProjectRow(1, entity, name, NOW)

    @property
    def records(self) -> OneArtifact:
        return self

    @property
    def artifacts(self) -> OneArtifact:
        return self

    def collections(self, project: ProjectRow, type_name: str | None = None) -> list[ProjectRow]:
        return [ProjectRow(1, "", "dense-1", NOW), ProjectRow(2, "", "profile-x-cpu-f32", NOW)]

    def artifact_file(self, entity: str, project: str, name: str, path: str) -> bytes:
        assert path == "profile.json"
        return b'{"of": "%s"}' % name.encode()


@pytest.mark.parametrize(
    ("value", "found"),
    [("profile-a:v0", {"of": "profile-a:v0"}), ("latest", {"of": "profile-x-cpu-f32:latest"}), (None, None)],
)
def test_profile_of_a_sweep(hub: ListHub, value: str | None, found: dict[str, str] | None) -> None:
    """A sweep names its profile by version, or `latest` for the project's newest, or not at all."""
    parameters = {} if value is None else {"profile": {"value": value}}
    sweep = hub.sweeps[hub.add(grid_config(parameters=parameters))]
    assert profile_of(cast(Hub, OneArtifact()), sweep) == found
