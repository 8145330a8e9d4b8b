"""Several devices in one search: each has a latency model of its own, and the slowest counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.infra.controller.contract import StoredTrial, Suggestion
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.infra.controller.pruning.channels import read
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.pareto import front
from prunefleet.objective.goals.score import values
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import Space

from support.controller import DENSE, GOAL, GROUPS, WIDTHS, kept_of, sweep, sweep_config
from support.controller_devices import (
    EARLY,
    LAWS,
    PROFILE,
    SPACE,
    drawn,
    measured,
    ratios_of,
    searched,
    several,
    worst_score,
)


def played(profile: Profile, count: int) -> dict[str, int]:
    """The channels of the trial that is recommended after so many; each is told what the profile's devices took."""
    search, names = AskTell(sweep_config(), profile), [each.fingerprint.name for each in profile.devices]
    for _ in range(count):
        ((name, found),) = search.ask().items()
        kept = kept_of(found)
        told = ratios_of(kept) if names else EARLY.latency(kept)
        search.tell(name, told, DENSE - EARLY.drop(kept))
    best = search.recommend()
    assert best is not None
    return dict(best.kept)


# The search as a whole


def test_the_search_finds_what_is_best_on_the_slowest_device() -> None:
    """Where devices wait for other groups, one device's search finds what is best there and slow on the other."""
    both, one = played(PROFILE, 16), played(EARLY.profile(), 16)
    assert worst_score(both) > worst_score(one) + 0.1
    assert EARLY.score(one) > EARLY.score(both) + 0.05
    early, late = ratios_of(both).values()
    assert abs(early - late) < 0.1


def test_figures_by_device_are_nothing_to_a_sweep_of_one() -> None:
    """Whatever trials tell of several devices, a profile of one is searched by its ratio alone."""
    profile = EARLY.profile()
    trials = [replace(trial, latency_ratio=trial.latency_ratios["board"]) for trial in drawn(6)]
    warm = [measured(f"w{place}", Space(GROUPS).kept(dict(each))) for place, each in enumerate(profile.warm)]
    plain = [replace(trial, latency_ratios={}, baselines_ms={}) for trial in [*warm, *trials]]
    spec = sweep(profile=profile)
    assert BayesSearch().suggest(spec, [*warm, *trials], 1) == BayesSearch().suggest(spec, plain, 1)


# The models


@settings(max_examples=20)
@given(st.lists(st.floats(0.01, 2.0), min_size=6, max_size=6))
def test_each_model_learns_from_its_own_device_alone(other: list[float]) -> None:
    """Whatever the other device measured, what is expected of the first one stays exactly the same."""
    trials = drawn(6)
    changed = [
        replace(trial, latency_ratios={**trial.latency_ratios, "local": ratio})
        for trial, ratio in zip(trials, other, strict=True)
    ]
    here = SPACE.matrix([kept for trial in drawn(4, seed=1) if (kept := SPACE.tried(trial)) is not None])
    ends = np.array([[0.0], [1.0]])
    before, after = (searched(each)._latencies.sample(here, ends) for each in (trials, changed))
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_each_model_knows_its_own_untrained_networks() -> None:
    """Before any trial each device's law is foretold from its own latencies, the slowest one's being neither."""
    kept = [{**WIDTHS, "stem": 16, "a_in": 32}, {**WIDTHS, "c_out": 64, "b_out": 48}]
    here = SPACE.matrix([tuple(each.values()) for each in kept])
    found = searched([])._latencies.sample(here, np.zeros((1, 1)))[:, 0]
    true = [[law.latency(each) for each in kept] for law in LAWS.values()]
    assert found == pytest.approx(np.array(true), abs=0.05)


def test_a_device_that_a_trial_lacks_learns_nothing_from_it() -> None:
    """Its model is the one without that trial, the other device's knows it, and the network could be had."""
    trials = drawn(5)
    only = {"board": trials[4].latency_ratios["board"]}
    lacking = [*trials[:4], replace(trials[4], latency_ratios=only)]
    facts, fewer = read(SPACE, lacking), read(SPACE, trials[:4])
    assert facts.devices[0] == read(SPACE, trials).devices[0]
    assert facts.devices[1] == fewer.devices[1]
    assert (len(facts.had), len(fewer.had), len(facts.drop_at)) == (5, 4, 5)
    here = SPACE.matrix([facts.tried[4]])
    found, without, full = (
        searched(each)._latencies.sample(here, np.ones((1, 1))) for each in (lacking, trials[:4], trials)
    )
    assert found[1] == without[1] and found[0] == full[0] != without[0]


def test_a_network_that_ran_anywhere_can_be_had() -> None:
    """Near one that diverged, a trial that ran on one device alone speaks for the neighbourhood."""
    trial = drawn(1)[0]
    bad = replace(drawn(1)[0], name="bad", outcome="diverged", drop=None)
    one = replace(trial, latency_ratio=None, latency_ratios={"local": 0.5}, drop=None, outcome="skipped")
    here = SPACE.matrix([kept for kept in [SPACE.tried(trial)] if kept is not None])
    alone, beside = (float(searched(each)._possible(here)[0]) for each in ([bad], [bad, one]))
    assert alone < beside


def test_pending_trials_make_every_model_surer() -> None:
    """What waits for its answer is believed on each device."""
    trials, waiting = drawn(4), drawn(5)[4]
    pending = StoredTrial("p", waiting.params, "running")
    here = SPACE.matrix([kept for kept in [SPACE.tried(waiting)] if kept is not None])
    ends = np.array([[-1.0], [1.0]])
    alone, imputed = (
        np.ptp(np.log(searched(each)._latencies.sample(here, ends)), axis=1) for each in (trials, [*trials, pending])
    )
    assert (imputed < alone).all()


def test_a_second_device_of_the_same_law_changes_nothing_expected() -> None:
    """Twice the same device, and the latency ratio expected is exactly that of one."""
    twice, trials = several({"board": EARLY, "local": EARLY}), []
    for trial in drawn(6):
        ratio = trial.latency_ratios["board"]
        trials.append(replace(trial, latency_ratio=ratio, latency_ratios={"board": ratio, "local": ratio}))
    first = twice.devices[0].latencies[:1]  # the curves have the rest
    one = replace(twice, devices=(), latencies=first)
    here = SPACE.matrix([SPACE.tried(trials[0]) or ()])
    found, alone = (searched(trials, profile=each).expected(here) for each in (twice, one))
    assert found["latency_ratio"] == alone["latency_ratio"] == found["devices"]["local"] == found["devices"]["board"]
    assert found["drop"] == alone["drop"]


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_the_samples_of_devices_are_independent_and_the_least_score_counts(seed: int) -> None:
    """Each device has normal numbers of its own; the score of a sample is the least of its devices'."""
    search = searched(drawn(4, seed))
    here = SPACE.kept(np.array(SPACE.warm(PROFILE))[1:])
    drops, ratios = search._samples(here)
    assert ratios.shape == (len(LAWS), *drops.shape)
    logs = np.log(ratios[:, :, -1])
    assert abs(np.corrcoef(logs)[0, 1]) < 0.2
    each = [values(DENSE - drops, drops, ratio, GOAL) for ratio in ratios]
    assert np.array_equal(search.values(here), np.minimum(*each))


# Goals


def test_a_limit_in_milliseconds_holds_on_each_device() -> None:
    """By the median of each one's own dense model; a device that is slow in milliseconds decides, not in ratio."""
    goal = Goal("most_accurate", max_latency_ms=2.0)
    dense = {"board": 1.0, "local": 5.0}
    trials = drawn(8, baselines_ms=dense, baseline_ms=1.0)
    trials[0] = replace(trials[0], baselines_ms={"board": 1.0, "local": 500.0})  # one that was disturbed
    search = searched(trials, goal)
    assert search.goal == goal and [device.baseline_ms for device in search.facts.devices] == [1.0, 5.0]
    slow = {**WIDTHS, "stem": 16, "a_in": 32, "a_out": 32}  # 2 ms on the board, about 5 ms on the other
    quick = {name: width // 2 for name, width in WIDTHS.items()}  # about 1.5 ms there
    found = search.values(SPACE.matrix([tuple(slow.values()), tuple(quick.values())])).mean(axis=0)
    assert found[0] < 0 < found[1]
    answer = BayesSearch().suggest(replace(sweep(profile=PROFILE), goal=goal), [*warm_trials(dense), *trials], 1)
    assert isinstance(answer, Suggestion)
    assert answer.why["devices"]["local"]["expected"] * 5.0 < 2.2


def warm_trials(dense: Mapping[str, float]) -> list[StoredTrial]:
    kept = [Space(GROUPS).kept(dict(each)) for each in PROFILE.warm]
    return [measured(f"w{place}", each, baselines_ms=dense, baseline_ms=1.0) for place, each in enumerate(kept)]


@pytest.mark.parametrize("told", [{}, {"board": 1.0}], ids=["none", "one"])
def test_a_limit_in_milliseconds_waits_until_each_device_has_told(told: dict[str, float]) -> None:
    """Until then the search goes by the ratio, also where one device alone has told its milliseconds."""
    goal = Goal("most_accurate", max_latency_ms=1.0)
    search = searched(drawn(3, baselines_ms=told), goal)
    assert (search.goal.max_latency_ms, search.goal.max_latency_ratio) == (None, 1.0)
    assert np.isfinite(search.values(SPACE.matrix([tuple(WIDTHS.values())]))).all()


def test_a_front_is_of_the_slowest_device() -> None:
    """The speed of each trial on it is what is expected where the trial is slowest."""
    goal, trials = Goal(kind="pareto"), drawn(8)
    search = searched(trials, goal)
    expected = [search.expected(SPACE.matrix([kept])) for kept in search.facts.known]
    ratios = [max(each["expected"] for each in found["devices"].values()) for found in expected]
    found = front(-search._front)
    points = [(each["drop"]["expected"], ratio) for each, ratio in zip(expected, ratios, strict=True)]
    assert sorted(found) == sorted(front(points))
    assert np.argsort(search._front[:, 0]).tolist() == np.argsort(-np.array(ratios)).tolist()
    point = np.array(SPACE.warm(PROFILE))
    assert np.isfinite(search.acquisition(point)).all()


# What is told of it


def test_why_tells_what_is_expected_of_each_device() -> None:
    """By name, with intervals; `latency_ratio` is the largest of them, and the whole is plain JSON."""
    answer = BayesSearch().suggest(sweep(profile=PROFILE), [*warm_trials({}), *drawn(4)], 1)
    assert isinstance(answer, Suggestion)
    why = json.loads(json.dumps(answer.why))
    assert set(why["devices"]) == {"board", "local"}
    for end in ("expected", "lo", "hi"):
        assert why["latency_ratio"][end] == max(each[end] for each in why["devices"].values())
    for name, found in why["devices"].items():
        assert found["lo"] < found["expected"] < found["hi"]
        assert found["expected"] == pytest.approx(LAWS[name].latency(kept_of(answer)), abs=0.05)


def test_why_of_one_device_names_none() -> None:
    """A sweep of one device is told as ever."""
    found = searched([], profile=EARLY.profile()).expected(SPACE.matrix([tuple(WIDTHS.values())]))
    assert set(found) == {"drop", "latency_ratio", "score"}
