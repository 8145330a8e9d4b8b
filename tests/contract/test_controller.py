"""One suite for every controller: random, grid and Bayesian, other engines too, over plain parameters and ratios."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from prunefleet.infra.controller.__main__ import serve
from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec, suggest_many
from prunefleet.infra.controller.engines.registry import controller
from prunefleet.infra.controller.parameters import parse
from prunefleet.objective.sweepfile import ENGINES

from support.controller import GROUPS, Problem, sweep

MIXED: dict[str, Any] = {
    "task": {"value": "fashion_mnist"},
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
    "width": {"values": [8, 16, 32]},
    "model": {
        "parameters": {"act": {"values": ["relu", "gelu"]}, "depth": {"min": 2, "max": 5}, "name": {"value": "net"}}
    },
}
COUNTABLE: dict[str, Any] = {**MIXED, "lr": {"values": [0.001, 0.01, 0.1]}}
PROBLEM = Problem.seeded(0)
CASES = (
    "random-mixed",
    "random-pruning",
    "grid",
    "bayes-mixed",
    "bayes-countable",
    "bayes-pruning",
    "wandb-mixed",
    "optuna-mixed",
)


def make(case: str, **config: Any) -> SweepSpec:
    method, _, kind = case.partition("-")
    if method in ENGINES:
        config["parameters"] = {**config.get("parameters", MIXED), "engine": {"value": method}}
        config["program"] = "prunefleet"
        method = "bayes"
    if kind == "pruning":
        return sweep(method, PROBLEM.profile() if method == "bayes" else None, **config)
    parameters = MIXED if kind == "mixed" else COUNTABLE
    metric = {"name": "score", "goal": "maximize"}
    return SweepSpec.from_config("s", {"method": method, "metric": metric, "parameters": parameters, **config})


def finished(name: str, params: Any, rank: int) -> StoredTrial:
    """A trial whose numbers depend on its parameters in some smooth enough way."""
    total = sum(value for value in params.values() if isinstance(value, int | float)) % 7 / 7
    return StoredTrial(name, params, "finished", total, 0.02 * total, 0.9 - 0.5 * total, 0.9, "scored")


def run(spec: SweepSpec, count: int, start: tuple[StoredTrial, ...] = ()) -> list[StoredTrial]:
    """Ask and answer `count` times."""
    trials = list(start)
    for rank in range(count):
        answer = controller(spec.method, spec.engine).suggest(spec, trials, spec.seed(len(trials)))
        assert isinstance(answer, Suggestion)
        trials.append(finished(f"t{len(trials)}", answer.params, rank))
    return trials


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def spec(case: str) -> SweepSpec:
    return make(case)


@pytest.fixture(scope="module")
def trials(spec: SweepSpec) -> list[StoredTrial]:
    return run(spec, 11)


def ask(spec: SweepSpec, trials: list[StoredTrial], seed: int = 5) -> Suggestion:
    answer = controller(spec.method, spec.engine).suggest(spec, trials, seed)
    assert isinstance(answer, Suggestion)
    return answer


def test_empty(spec: SweepSpec) -> None:
    """A sweep without trials gets a first suggestion, and a reason with it."""
    assert ask(spec, []).why["kind"] in ("random", "grid", "explore", "warm", "engine")


def test_same_trials_same_suggestion(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """Two calls with the same trials and seed agree, whatever was asked in between."""
    first = ask(spec, trials)
    ask(spec, trials[:5], 7)
    assert ask(spec, trials) == first


def test_stored_form_teaches_the_same(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """Trials and a suggestion survive the way through JSON."""
    stored = [StoredTrial.from_json(json.loads(json.dumps(trial.to_json()))) for trial in trials]
    suggestion = ask(spec, stored)
    assert suggestion == ask(spec, trials)
    assert json.loads(json.dumps(suggestion.config)) == suggestion.config
    assert json.loads(json.dumps(suggestion.why)) == suggestion.why


def test_distinct(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """No combination is tried twice while others are left."""
    points = [spec.space.point(trial.params) for trial in trials]
    assert len(set(points)) == len(points)


def test_within_bounds(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """Every value is one that the sweep file allows."""
    for trial in trials:
        for leaf in spec.space.free:
            value = trial.params[leaf.name]
            levels = leaf.distribution.levels
            assert (
                value in levels
                if levels
                else leaf.distribution.quantile(0.0) <= value <= leaf.distribution.quantile(1.0)
            )


def test_constants_kept(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """A suggestion's config is complete: nested as in the file, with every constant."""
    config = ask(spec, trials).config
    for leaf in spec.space.leaves:
        place: Any = config
        for part in leaf.path:
            place = place[part]
        assert not leaf.constant or place == leaf.distribution.quantile(0.5)


def test_pending_is_not_repeated(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """Suggestions made while others run differ from them and from each other."""
    answers = suggest_many(controller(spec.method, spec.engine), spec, trials, 4)
    points = [spec.space.point(answer.params) for answer in answers if isinstance(answer, Suggestion)]
    assert len(set(points)) == 4
    assert not set(points) & {spec.space.point(trial.params) for trial in trials}


@pytest.mark.parametrize("outcome", ["infeasible", "diverged", "kept_failing", None])
def test_failed_trials(spec: SweepSpec, trials: list[StoredTrial], outcome: str | None) -> None:
    """Failures without numbers leave the search able to go on, even when all trials failed."""
    state = "crashed" if outcome is None else "finished"
    failed = [StoredTrial(trial.name, trial.params, state, outcome=outcome) for trial in trials]
    ask(spec, [*trials[:6], *failed[6:]])
    ask(spec, failed)


def test_numbers_that_are_none(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """NaN and infinity in a trial teach nothing and break nothing."""
    odd = [replace(trial, value=float("nan"), drop=float("inf"), latency_ratio=float("nan")) for trial in trials]
    assert odd[0].value is None
    ask(spec, [*trials[:8], *odd[8:]])


def test_foreign_runs(spec: SweepSpec, trials: list[StoredTrial]) -> None:
    """A run without the sweep's parameters, put there by hand, is passed over."""
    ask(spec, [*trials, StoredTrial("foreign", {"other": 1}, "finished", 0.5, outcome="scored")])


def test_run_cap(case: str) -> None:
    """No suggestion is made past `run_cap`."""
    spec = make(case, run_cap=3)
    answers = suggest_many(controller(spec.method, spec.engine), spec, run(spec, 1), 5)
    assert [type(answer) for answer in answers] == [Suggestion, Suggestion, Exhausted]


@pytest.mark.parametrize("case", ["grid", "bayes-countable", "bayes-pruning"])
def test_exhausted(case: str) -> None:
    """A finite space ends when each of its points was tried once."""
    few = {"a": {"values": [0.0, 0.25]}, "b": {"values": [0, 0.5]}, "c": {"value": 1}}
    ratios = {"a_in": {"values": [0.0, 0.25]}, "b_in": {"values": [0.0, 0.5]}, "stem": {"value": 0.0}}
    parameters = {**sweep().parameters, "ratio": {"parameters": ratios}} if case == "bayes-pruning" else few
    spec = make(case, parameters=parameters)
    trials = run(spec, 4)
    assert len({spec.space.point(trial.params) for trial in trials}) == 4
    assert isinstance(controller(spec.method, spec.engine).suggest(spec, trials, 0), Exhausted)


def test_another_process_agrees() -> None:
    """A fresh process gives the same suggestion for the same stored trials, digit for digit."""
    spec = make("bayes-pruning")
    trials = run(spec, 10)
    profile = spec.profile
    assert profile is not None
    config = {"method": "bayes", "metric": {"name": "score", "goal": "maximize"}, "parameters": dict(spec.parameters)}
    request = {
        "id": 1,
        "sweep": {"name": "s", "config": config, "profile": profile.to_json()},
        "trials": [trial.to_json() for trial in trials],
        "count": 1,
    }
    command = [sys.executable, "-m", "prunefleet.infra.controller"]
    done = subprocess.run(command, input=json.dumps(request) + "\n", capture_output=True, text=True, check=True)
    (suggestion,) = json.loads(done.stdout)["suggestions"]
    expected = ask(spec, trials, spec.seed(10))
    assert suggestion == json.loads(
        json.dumps({"params": expected.params, "config": expected.config, "why": expected.why, "repeat": 0})
    )


def test_a_request_that_was_cut_off_is_no_fault() -> None:
    """The hub was killed while it asked: the process ends without a word."""
    answers = io.StringIO()
    serve(io.StringIO('{"id": 1, "sweep": {"na'), answers)
    assert answers.getvalue() == ""


def test_parameters_parse() -> None:
    """The spaces of this suite are what they look like."""
    assert len(parse(MIXED).free) == 4
    assert len(sweep().space.free) == len(GROUPS)
