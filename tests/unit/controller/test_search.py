"""The parts of the Bayesian search, and whether the whole finds what random draws do not."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunefleet.infra.controller import __main__ as process
from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.infra.controller.engines.random import RandomSearch
from prunefleet.infra.controller.pruning.channels import ChannelGrid, read
from prunefleet.infra.controller.pruning.search import PruningSearch
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import bound, hopeless
from prunefleet.objective.profiles.space import Space

from support.controller import DENSE, GOAL, GROUPS, WIDTHS, Problem, kept_of, sweep, sweep_config


def play(
    problem: Problem, method: str, seed: int, count: int = 20, skip: bool = False
) -> list[tuple[StoredTrial, dict[str, int]]]:
    """`count` trials by two agents: each suggestion is made while one trial runs; `skip` those that cannot win."""
    spec = sweep(method, problem.profile(seed) if method == "bayes" else None, name=f"s{seed}")
    controller = BayesSearch() if method == "bayes" else RandomSearch()
    done: list[tuple[StoredTrial, dict[str, int]]] = []
    for place in range(count):
        seen = [trial for trial, _ in done]
        if seen:
            seen[-1] = StoredTrial(seen[-1].name, seen[-1].params, "running")
        answer = controller.suggest(spec, seen, spec.seed(len(seen)))
        assert isinstance(answer, Suggestion)
        kept = kept_of(answer)
        trial = problem.trial(f"t{place}", answer.params, kept, seed)
        done.append((skipped(trial, seen) if skip else trial, kept))
    return done


def skipped(trial: StoredTrial, seen: list[StoredTrial]) -> StoredTrial:
    """The trial, without an accuracy where it could not have beaten the best that was seen."""
    best = max((each.value for each in seen if each.value is not None), default=None)
    assert trial.latency_ratio is not None
    if not hopeless(bound(trial.latency_ratio, GOAL, DENSE), best, GOAL):
        return trial
    return replace(trial, value=None, drop=None, metric=None, outcome="skipped")


def found(problem: Problem, done: list[tuple[StoredTrial, dict[str, int]]]) -> float:
    """The true score of the best candidate tried."""
    return max(problem.score(kept) for _, kept in done)


# The search as a whole


# Two problems in `make test`.
@pytest.mark.parametrize("problems", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_beats_random(problems: int) -> None:
    """In 20 trials the search finds a clearly faster candidate than random draws do, and than its own warm points."""
    gains = []
    for seed in range(problems):
        problem = Problem.seeded(100 + seed)
        ours, random = (play(problem, method, seed) for method in ("bayes", "random"))
        gains.append(found(problem, ours) - found(problem, random))
        assert found(problem, ours) > found(problem, ours[: len(problem.profile(seed).warm)])
    # The score is about the share of latency saved; on an easy instance random draws come near.
    assert np.mean(gains) > 0.1
    assert sorted(gains)[1] > 0.05


def test_generic_beats_random() -> None:
    """Without a profile, 20 runs of the generic search come nearer to a minimum than random ones, median of 3 seeds."""
    parameters = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}, "x": {"min": -2.0, "max": 2.0}}
    parameters |= {"act": {"values": ["relu", "tanh", "gelu"]}}

    def loss(params: Any) -> float:
        cost = (np.log10(params["lr"]) + 3) ** 2 + (params["x"] - 0.7) ** 2
        return float(cost + 2 * (params["act"] != "gelu"))

    ends: dict[str, list[float]] = {"bayes": [], "random": []}
    for seed in range(3):
        for method, reached in ends.items():
            config = {"method": method, "metric": {"name": "loss", "goal": "minimize"}, "parameters": parameters}
            spec = SweepSpec.from_config(f"s{seed}", config)
            trials: list[StoredTrial] = []
            for place in range(20):
                controller = process.controller(method)
                answer = controller.suggest(spec, trials, spec.seed(place))
                assert isinstance(answer, Suggestion)
                trials.append(StoredTrial(f"t{place}", answer.params, "finished", loss(answer.params)))
            reached.append(min(trial.value for trial in trials if trial.value is not None))
    assert np.median(ends["bayes"]) < 0.3 * np.median(ends["random"])


# Rules of the pruning search


PROBLEM = Problem.seeded(3)
PROFILE = PROBLEM.profile()


@pytest.fixture(scope="module")
def twelve() -> list[StoredTrial]:
    return [trial for trial, _ in play(PROBLEM, "bayes", 0, 12)]


def suggestion(spec: SweepSpec, trials: list[StoredTrial], seed: int = 1) -> Suggestion:
    answer = BayesSearch().suggest(spec, trials, seed)
    assert isinstance(answer, Suggestion)
    return answer


def test_warm_points_first_and_in_order() -> None:
    """The first suggestions are the profile's warm points; one that runs or failed on its host is not repeated."""
    spec = sweep(profile=PROFILE)
    trials: list[StoredTrial] = []
    for place, ratios in enumerate(PROFILE.warm):
        answer = suggestion(spec, trials)
        assert kept_of(answer) == Space(GROUPS).kept(ratios)
        assert answer.why["kind"] == "warm"
        states = ("running", "crashed", "finished")
        trials.append(StoredTrial(f"t{place}", answer.params, states[place % 3]))
    assert suggestion(spec, trials).why["kind"] in ("explore", "exploit")


def test_why_tells_what_is_expected(twelve: list[StoredTrial]) -> None:
    """A reason holds predictions with intervals, the acquisition's value and the nearest trial."""
    why = suggestion(sweep(profile=PROFILE), twelve).why
    for name in ("drop", "latency_ratio"):
        assert why[name]["lo"] <= why[name]["expected"] <= why[name]["hi"]
    assert why["kind"] in ("explore", "exploit")
    assert why["nearest"]["trial"] in {trial.name for trial in twelve}
    assert why["nearest"]["groups"] >= 1
    assert set(why["kept"]) == set(WIDTHS)
    assert isinstance(why["acquisition"]["value"], float)


def test_another_goal_needs_no_new_trial(twelve: list[StoredTrial]) -> None:
    """With the same trials a looser limit leads to a faster candidate."""
    spec = sweep(profile=PROFILE)
    strict, loose = (
        suggestion(replace(spec, goal=Goal(max_drop=limit)), twelve).why["latency_ratio"]["expected"]
        for limit in (0.005, 0.15)
    )
    assert loose < strict


@pytest.mark.parametrize(
    "goal",
    [
        Goal(kind="most_accurate", max_latency_ratio=0.5),
        Goal(kind="most_accurate", max_latency_ms=1.0),
        Goal(kind="tradeoff"),
        Goal(kind="pareto"),
    ],
    ids=lambda goal: str(goal.kind),
)
def test_every_goal(goal: Goal, twelve: list[StoredTrial]) -> None:
    """Every objective can be searched for, one in milliseconds before and after the dense model's are known."""
    spec = replace(sweep(profile=PROFILE), goal=goal)
    suggestion(spec, twelve)
    suggestion(spec, [replace(trial, baseline_ms=2.0) for trial in twelve])


def test_host_failures_teach_nothing(twelve: list[StoredTrial]) -> None:
    """Models are the same with and without trials that their hosts failed, whatever those had measured."""
    space = ChannelGrid(sweep(profile=PROFILE), PROFILE)
    failed = [replace(twelve[-1], state="failed", outcome="kept_failing"), replace(twelve[-2], state="crashed")]
    facts, fewer = read(space, [*twelve[:-2], *failed]), read(space, twelve[:-2])
    assert (facts.drop_at, facts.devices, facts.impossible) == (fewer.drop_at, fewer.devices, fewer.impossible)
    assert len(facts.tried) == 12


def test_skipped_trials_teach_latency(twelve: list[StoredTrial]) -> None:
    """A trial that was not trained because it could not win still teaches how fast it is."""
    space = ChannelGrid(sweep(profile=PROFILE), PROFILE)
    facts = read(space, [replace(trial, outcome="skipped", drop=None, value=None) for trial in twelve])
    assert (len(facts.devices[0].latency_at), len(facts.drop_at)) == (12, 0)


def test_skipped_trials_teach_no_accuracy(twelve: list[StoredTrial]) -> None:
    """The model of the drop and the best that the search builds on are those without them, the latency's knows more."""
    space = ChannelGrid(sweep(profile=PROFILE), PROFILE)
    skipped = [replace(trial, outcome="skipped", drop=None, value=None) for trial in twelve[8:]]
    with_them, without = (
        PruningSearch(space, PROFILE, Goal(max_drop=0.02), read(space, trials), 0)
        for trials in ([*twelve[:8], *skipped], twelve[:8])
    )
    here = space.matrix([kept for trial in skipped if (kept := space.tried(trial)) is not None])
    told = np.log([trial.latency_ratio for trial in skipped])
    assert np.array_equal(with_them._drop.predict(here).mean, without._drop.predict(here).mean)
    middle = np.zeros((1, 1))
    off = [np.abs(np.log(each._latencies.sample(here, middle)[0, 0]) - told).max() for each in (with_them, without)]
    assert off[0] < 0.5 * off[1]
    assert len(with_them._reached) == len(without._reached) == 8


def test_skipped_trials_are_not_tried_again(twelve: list[StoredTrial]) -> None:
    """Their place is taken, for they would be skipped again."""
    spec = sweep(profile=PROFILE)
    first = suggestion(spec, twelve)
    skipped = replace(twelve[-1], name="s", params=first.params, outcome="skipped", drop=None, value=None)
    assert kept_of(suggestion(spec, [*twelve, skipped])) != kept_of(first)


@pytest.mark.slow
def test_skipping_costs_the_search_nothing() -> None:
    """Where trials that cannot win are not trained, twenty trials find as good a candidate as where all are."""
    found_by = {True: [], False: []}
    for seed in (1, 2):
        problem = Problem.seeded(100 + seed)
        for skip, reached in found_by.items():
            reached.append(found(problem, play(problem, "bayes", seed, skip=skip)))
    assert np.mean(found_by[True]) > np.mean(found_by[False]) - 0.02


def test_infeasible_regions_are_avoided(twelve: list[StoredTrial]) -> None:
    """Near trials that diverged the search expects less."""
    spec = sweep(profile=PROFILE)
    before = suggestion(spec, twelve)
    bad = replace(
        twelve[-1], name="bad", params=before.params, state="finished", outcome="diverged", drop=None, value=None
    )
    after = suggestion(spec, [*twelve, bad])
    space = ChannelGrid(spec, PROFILE)
    here = np.array([list(kept_of(before).values())], dtype=float)
    known, taught = (
        PruningSearch(space, PROFILE, Goal(), read(space, trials), 0) for trials in (twelve, [*twelve, bad])
    )
    assert taught._possible(here)[0] < 0.8 < known._possible(here)[0]
    assert kept_of(after) != kept_of(before)


def test_pending_trials_count(twelve: list[StoredTrial]) -> None:
    """Two suggestions in a row differ, and models are surer where a trial is on its way."""
    spec = sweep(profile=PROFILE)
    first = suggestion(spec, twelve)
    pending = [*twelve, StoredTrial("p", first.params, "pending")]
    assert kept_of(suggestion(spec, pending)) != kept_of(first)
    space = ChannelGrid(spec, PROFILE)
    here = np.array([list(kept_of(first).values())], dtype=float)
    alone, imputed = (PruningSearch(space, PROFILE, Goal(), read(space, trials), 0) for trials in (twelve, pending))
    assert imputed._drop.predict(here).std[0] < alone._drop.predict(here).std[0]


def test_sweep_narrower_than_profile(twelve: list[StoredTrial]) -> None:
    """Bounds, listed values, constants and left-out groups of the sweep file hold; warm points move inside them."""
    ratios = {"stem": {"value": 0.5}, "a_in": {"values": [0.25, 0.5]}, "b_in": {"min": 0.2, "max": 0.6}}
    parameters = {**sweep_config()["parameters"], "ratio": {"parameters": ratios}}
    parameters["recipe"] = {"parameters": {"epochs": {"values": [1, 2]}}}
    spec = sweep(profile=PROFILE, parameters=parameters)
    trials: list[StoredTrial] = []
    # Five levels of b_in, two of a_in, two choices of epochs; stem is a constant, and replicates count once.
    while len({str(sorted(trial.params.items())) for trial in trials}) < 20:
        place = len(trials)
        answer = suggestion(spec, trials, place)
        config = answer.config["ratio"]
        assert config["stem"] == 0.5
        assert config["a_in"] in (0.25, 0.5)
        assert 0.2 <= config["b_in"] <= 0.6
        assert set(config) == {"stem", "a_in", "b_in"}
        assert answer.config["recipe"]["epochs"] in (1, 2)
        trials.append(PROBLEM.trial(f"t{place}", answer.params, kept_of(answer), 0))
    assert isinstance(BayesSearch().suggest(spec, trials, 0), Exhausted)


def test_unknown_group() -> None:
    """A ratio for a group that the profile does not know is refused by name."""
    parameters = {**sweep_config()["parameters"], "ratio": {"parameters": {"head": {"values": [0.0, 0.5]}}}}
    with pytest.raises(BadInput, match=r"ratio\.head"):
        suggestion(sweep(profile=PROFILE, parameters=parameters), [])


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("objective", "parameters", "kind"), {"value": "cheapest"}, "objective.kind"),
        (("objective", "parameters", "max_drop"), {"values": [0.01, 0.02]}, "parameters.objective.max_drop"),
        (("objective", "parameters", "metric"), {"value": "top5"}, "profile.metric"),
        (("measure",), {"parameters": {"precision": {"value": "int8"}}}, "profile.precision"),
    ],
)
def test_sweep_and_profile_must_fit(path: tuple[str, ...], value: Any, field: str) -> None:
    """An objective that cannot be read, or a profile of another metric or precision, is refused by field."""
    config = sweep_config()
    place = config["parameters"]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(BadInput) as caught:
        SweepSpec.from_config("s", config, PROFILE)
    assert caught.value.field == field


# The process


def request(**sweep_parts: Any) -> dict[str, Any]:
    described = {"name": "s", "config": sweep_config(), "profile": PROFILE.to_json(), **sweep_parts}
    return {"id": 7, "sweep": described, "trials": [], "count": 2}


def test_profile_that_does_not_fit_is_left_out() -> None:
    """With a profile of another version the search goes on without one, and says so."""
    answer = process.answer(request(profile={**PROFILE.to_json(), "version": 99}))
    assert len(answer["suggestions"]) == 2
    assert "without a profile" in answer["note"]


def test_failing_model_draws_at_random(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug in the model costs quality, not the sweep: random draws, a note, and the trace on standard error."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(BayesSearch, "suggest", broken)
    answer = process.answer(request())
    assert [each["why"]["kind"] for each in answer["suggestions"]] == ["random", "random"]
    assert "ZeroDivisionError" in answer["note"]
    assert "Traceback" in capsys.readouterr().err


def test_bad_sweep_is_one_line() -> None:
    """A sweep that cannot be searched is answered by one line."""
    answer = process.answer(request(config={**sweep_config(), "method": "guess"}))
    assert answer["error"].startswith("method: got 'guess'")


# Parts


@pytest.mark.bench
def test_speed() -> None:
    """With 100 trials a suggestion takes at most two seconds."""
    trials = [trial for trial, _ in play(PROBLEM, "random", 0, 100)]
    spec = sweep(profile=replace(PROFILE, warm=()))
    suggestion(spec, trials[:20])
    begun = time.monotonic()
    suggestion(spec, trials)
    assert time.monotonic() - begun < 2
