"""What is told of several devices: stored trials, runs' summaries, results from Python, and whether a profile fits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.controller.__main__ import answer
from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.infra.controller.contract import StoredTrial, SweepSpec
from prunefleet.infra.controller.parameters import parse
from prunefleet.infra.controller.pruning.channels import read
from prunefleet.infra.hub.suggest.buffer import answers_of
from prunefleet.infra.hub.suggest.input import trial_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import values
from prunefleet.objective.profiles.profile import Profile

from support.controller import DENSE, sweep_config
from support.controller_devices import EARLY, PROFILE, SPACE, device, drawn

SPACE_OF_FILE = parse(sweep_config()["parameters"])

figures = st.dictionaries(
    st.text(max_size=4), st.floats() | st.none() | st.text(max_size=3) | st.integers(), max_size=3
)


@given(figures, figures)
def test_a_stored_trial_comes_back_as_it_was(ratios: dict[str, Any], dense: dict[str, Any]) -> None:
    """Also through JSON; a figure that is no finite number is left out and named, one that is not there is not."""
    trial = StoredTrial("t", {}, "finished", latency_ratios=ratios, baselines_ms=dense)
    assert StoredTrial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
    for name, given_figures in (("latency_ratios", ratios), ("baselines_ms", dense)):
        read_as = getattr(trial, name)
        assert all(math.isfinite(each) and each == given_figures[device] for device, each in read_as.items())
        lost = {device for device, each in given_figures.items() if each is not None} - set(read_as)
        assert {f"{name}.{device}" for device in lost} == {each for each in trial.unread if each.startswith(name)}


def test_a_figure_of_a_device_that_is_none_is_told() -> None:
    """In the words of the run's summary; the search goes on without it."""
    trial = replace(drawn(1)[0], latency_ratios={"board": math.nan, "local": 0.5}, baselines_ms={"board.2": math.inf})
    described = {"name": "s", "config": sweep_config(), "profile": PROFILE.to_json()}
    found = answer({"id": 1, "sweep": described, "trials": [trial.to_json()], "count": 1})
    assert found["note"].startswith(
        "run t0: its devices.board.latency_ratio, devices.board.2.baseline_p50_ms is no finite"
    )
    assert found["suggestions"]


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**400) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["board", "latency_ratio", "baseline_p50_ms", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(junk)
def test_any_summary_is_read(devices: Any) -> None:
    """Any client may write anything under `devices`; what is a number is learnt, the rest costs itself alone."""
    summary = {"latency_ratio": 0.5, "outcome": "scored", "metric_drop": 0.01, "devices": devices}
    trial = trial_of("r", "finished", {}, summary, sweep_config(), SPACE_OF_FILE)
    assert trial.latency_ratio == 0.5
    assert StoredTrial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
    read(SPACE, [replace(trial, params=drawn(1)[0].params)])


def test_a_summary_of_several_devices_is_read_by_name() -> None:
    """Ratio and dense milliseconds of each; what else is told of them is not the search's."""
    devices = {"board": {"latency_ratio": 0.5, "baseline_p50_ms": 2.0, "noisy": 0}, "local": {"latency_ratio": 0.4}}
    trial = trial_of("r", "finished", {}, {"latency_ratio": 0.5, "devices": devices}, sweep_config(), SPACE_OF_FILE)
    assert trial.latency_ratios == {"board": 0.5, "local": 0.4}
    assert trial.baselines_ms == {"board": 2.0}
    assert (trial.measured_on("local"), trial.measured_on(None)) == ((0.4, None), (0.5, None))


def test_a_whole_number_of_any_length_is_none() -> None:
    """JSON has some that no float holds; they cost themselves alone, as one device's figure or as a device's."""
    summary = {
        "latency_ratio": 10**400,
        "devices": {"board": {"latency_ratio": 10**400}, "local": {"latency_ratio": 1}},
    }
    trial = trial_of("r", "finished", {}, summary, sweep_config(), SPACE_OF_FILE)
    assert (trial.latency_ratio, trial.latency_ratios) == (None, {"local": 1.0})
    assert trial.unread == ("latency_ratio", "latency_ratios.board")


def test_a_ratio_that_came_for_one_device_is_a_new_answer() -> None:
    """What lies ready was made without it, so the hub has the search think again."""
    trial = drawn(1)[0]
    others = [
        replace(trial, latency_ratios={**trial.latency_ratios, "local": 0.1}),
        replace(trial, latency_ratios={}),
        replace(trial, baselines_ms={"local": 2.0}),
    ]
    assert len({answers_of([each]) for each in (trial, *others)}) == 4
    assert answers_of([trial]) == answers_of(
        [replace(trial, latency_ratios=dict(sorted(trial.latency_ratios.items(), reverse=True)))]
    )


# From Python


def test_results_are_told_by_device() -> None:
    """The slowest one's stand beside them, as in a run's summary, and the score is the least of all."""
    config = sweep_config()
    objective = {"kind": {"value": "most_accurate"}, "max_latency_ms": {"value": 2.0}}
    config["parameters"]["objective"] = {"parameters": objective}
    search = AskTell(config, PROFILE)
    ((name, _),) = search.ask().items()
    search.tell(name, {"local": 0.3, "board": 0.5}, DENSE, baseline_ms={"board": 1.0, "local": 10.0})
    (trial,) = search.trials
    assert trial.latency_ratios == {"board": 0.5, "local": 0.3} and trial.baselines_ms == {"board": 1.0, "local": 10.0}
    assert (trial.latency_ratio, trial.baseline_ms) == (0.5, 1.0)
    goal = Goal("most_accurate", max_latency_ms=2.0)
    assert trial.value == float(values(DENSE, 0.0, 0.3, goal, 10.0)) < 0 < float(values(DENSE, 0.0, 0.5, goal, 1.0))


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"latency_ratio": 0.5}, "latency_ratio: got 0.5; give a mapping with one number for each of board, local"),
        (
            {"latency_ratio": {"board": 0.5}},
            "latency_ratio: got {'board': 0.5}; give a mapping with one number for each",
        ),
        (
            {"latency_ratio": {"board": 0.5, "local": 0.5, "pi": 0.5}},
            "latency_ratio: got {'board': 0.5, 'local': 0.5, 'pi': 0.5}; give a mapping with one number for each of",
        ),
        (
            {"latency_ratio": {"board": 0.5, "local": math.nan}},
            "latency_ratio: got {'board': 0.5, 'local': nan}; give a finite number for a trial that is scored",
        ),
        ({}, "latency_ratio: got None; give a finite number for a trial that is scored"),
        (
            {"latency_ratio": {"board": 0.5, "local": 0.5}, "baseline_ms": 1.0},
            "baseline_ms: got 1.0; give a mapping with one number for each of board, local",
        ),
    ],
    ids=["number", "missing", "unknown", "no number", "nothing", "milliseconds"],
)
def test_results_of_other_devices_are_refused(figures: dict[str, Any], line: str) -> None:
    """In one line that names the profile's; the trial is still waited for."""
    search = AskTell(sweep_config(), PROFILE)
    search.ask()
    with pytest.raises(BadInput) as told:
        search.tell("t0", metric=DENSE, **figures)
    assert str(told.value).startswith(line)
    search.tell("t0", {"board": 1.0, "local": 1.0}, DENSE)


def test_a_profile_of_one_device_takes_a_number() -> None:
    """Names would be of devices that it does not know."""
    search = AskTell(sweep_config(), EARLY.profile())
    search.ask()
    with pytest.raises(BadInput, match=r"latency_ratio: got \{'board': 0\.5\}; give one number"):
        search.tell("t0", {"board": 0.5}, DENSE)


# Whether sweep and profile fit

ONE = replace(EARLY.profile(), fingerprint=device("board"))


def fitted(profile: Profile, named: Any) -> SweepSpec:
    parameters = {**sweep_config()["parameters"], "measure": {"parameters": {"device": {"value": named}}}}
    return SweepSpec.from_config("s", {**sweep_config(), "parameters": parameters}, profile)


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        (PROFILE, ["board", "local"]),
        (PROFILE, ["local", "board"]),
        (ONE, "board"),
        (ONE, ["board"]),
        (EARLY.profile(), "pi"),
    ],
)
def test_a_profile_of_the_sweeps_devices_fits(profile: Profile, named: Any) -> None:
    """In whatever order they are named; an old profile that does not say fits any."""
    assert fitted(profile, named).profile is profile


@pytest.mark.parametrize(
    ("profile", "named", "line"),
    [
        (
            PROFILE,
            "board",
            "profile.fingerprint: got 'board and local'; make a profile for board with `prunefleet plan`",
        ),
        (PROFILE, ["pi", "board"], "profile.fingerprint: got 'board and local'; make a profile for board and pi with"),
        (PROFILE, ["board", "local", "pi"], "profile.fingerprint: got 'board and local'; make a profile for board and"),
        (ONE, ["board", "local"], "profile.fingerprint: got 'board'; make a profile for board and local with"),
        (ONE, "local", "profile.fingerprint: got 'board'; make a profile for local with `prunefleet plan`"),
        (ONE, [], "parameters.measure.device: got []; give one device, or a list with each device once"),
        (ONE, {"board": 1}, "parameters.measure.device: got {'board': 1}; give a name"),
    ],
)
def test_a_profile_of_other_devices_is_refused(profile: Profile, named: Any, line: str) -> None:
    """In one line that names both, for one more or one fewer as well."""
    with pytest.raises(BadInput) as told:
        fitted(profile, named)
    assert str(told.value).startswith(line)
