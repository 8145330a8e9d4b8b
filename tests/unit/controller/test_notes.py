"""What the search says of input that it cannot use: one line each, and the sweep goes on where it can."""

import math
from dataclasses import replace
from typing import Any

import pytest

from prunefleet.infra.controller.__main__ import answer
from prunefleet.infra.controller.contract import StoredTrial
from prunefleet.objective.trial import Device

from support.controller import Problem, sweep_config

PROBLEM = Problem.seeded(0)
PROFILE = PROBLEM.profile()
ELSEWHERE = Device("edge", "cpu", "h", "c", 2, 8.0, "linux", {})
PROMISE = "with `prunefleet plan`; the search goes on without a profile"


def answered(
    trials: tuple[StoredTrial, ...] = (), profile: Any = PROFILE, measure: Any = None, **parameters: Any
) -> dict[str, Any]:
    """What the controller answers when asked for one suggestion."""
    config = sweep_config()
    config["parameters"] |= parameters
    if measure is not None:
        config["parameters"]["measure"] = {"parameters": {name: {"value": each} for name, each in measure.items()}}
    described = {"name": "s", "config": config, "profile": profile.to_json()}
    return answer({"id": 1, "sweep": described, "trials": [t.to_json() for t in trials], "count": 1})


@pytest.mark.parametrize(
    ("profile", "more", "told"),
    [
        (replace(PROFILE, metric="recall"), {}, "profile.metric: got 'recall'; make a profile for top1"),
        (PROFILE, {"measure": {"precision": "int8"}}, "profile.precision: got 'f32'; make a profile for int8"),
        (PROFILE, {"baseline": {"value": "other"}}, "profile.baseline_hash: got 'b'; make a profile for other"),
        (
            replace(PROFILE, fingerprint=ELSEWHERE),
            {"measure": {"device": "local"}},
            "profile.fingerprint: got 'edge'; make a profile for local",
        ),
    ],
    ids=["metric", "precision", "network", "device"],
)
def test_a_profile_of_something_else_is_left_out(profile: Any, more: dict[str, Any], told: str) -> None:
    """Of another metric, precision, network or device: the line names both, and the search goes on without it."""
    found = answered(profile=profile, **more)
    assert found["note"].startswith(told)
    assert found["note"].endswith(PROMISE)
    assert found["suggestions"][0]["why"]["kind"] == "explore"


def test_a_profile_that_fits_is_used_without_a_word() -> None:
    """The same network, metric, precision and device."""
    found = answered(
        profile=replace(PROFILE, fingerprint=ELSEWHERE),
        measure={"device": "edge", "precision": "f32"},
        baseline={"value": "b"},
    )
    assert found["note"] is None
    assert found["suggestions"][0]["why"]["kind"] == "warm"


@pytest.mark.parametrize("number", [math.nan, "NaN", "Infinity", math.inf])
def test_a_number_that_is_none_is_told_and_taught_nothing(number: Any) -> None:
    """The run and the field are named; it costs that number alone, and the word stays when trials go over the pipe."""
    params = answered()["suggestions"][0]["params"]
    trial = StoredTrial("r7", params, "finished", drop=number, latency_ratio=1.0, outcome="scored")
    assert (trial.drop, trial.unread) == (None, ("drop",))
    assert StoredTrial.from_json(trial.to_json()) == trial
    found = answered((trial, replace(trial, name="r8")))
    told = "run r8: its metric_drop is no finite number, so the search learns nothing from that (2 runs in all)"
    assert found["note"] == told
    assert found["suggestions"]


def test_parameters_that_are_no_ratios_are_searched_on_the_metric_alone() -> None:
    """A sweep with a profile and without a ratio block is served by the generic search, and says so."""
    config = sweep_config()
    config["parameters"]["lr"] = {"min": 0.001, "max": 0.1}
    del config["parameters"]["ratio"]
    described = {"name": "s", "config": config, "profile": PROFILE.to_json()}
    found = answer({"id": 1, "sweep": described, "trials": [], "count": 1})
    assert "no block is called ratio; the search goes on without the profile" in found["note"]
    assert "lr" in found["suggestions"][0]["config"]


def test_bounds_that_leave_one_candidate_end_with_it() -> None:
    """It is tried once, and then the search says that there is nothing else."""
    only = {"parameters": {group.name: {"value": 0.5} for group in PROFILE.groups}}
    first = answered(ratio=only)["suggestions"][0]
    trial = StoredTrial("r1", first["params"], "finished", drop=0.01, latency_ratio=0.5, outcome="scored")
    found = answered((trial,), ratio=only)
    assert found["suggestions"] == []
    assert "tried" in found["exhausted"]


def test_an_objective_that_is_none_leaves_the_metric_to_search_by() -> None:
    """Field, value and remedy are told; the search goes on by the sweep's own metric."""
    found = answered(objective={"parameters": {"kind": {"value": "smallest"}}})
    assert "kind" in found["note"] and "smallest" in found["note"]
    assert found["suggestions"]
