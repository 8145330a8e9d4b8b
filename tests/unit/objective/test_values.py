"""Trials, goals and profiles as values: validated where built, exact as JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, DeviceLatencies, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec
from prunefleet.objective.trial import (
    Accuracy,
    Candidate,
    Conditions,
    Device,
    Energy,
    Failure,
    FailureKind,
    Latency,
    Measurement,
    Score,
)

from support.paths import ROOT

share = st.floats(0, 1)
DEVICE = Device("local", "cpu", "host", "a cpu", 2, 8.0, "linux", {"openvino": "1"}, None)
GROUPS = tuple(GroupSpec(name, width, 16) for name, width in (("stem", 32), ("a", 64), ("b", 128)))
CURVES = (
    Curve("stem", (16,), (0.7,), (0.95,)),
    Curve("a", (16, 32, 48), (0.6, 0.88, 0.91), (0.7, 0.8, 0.9)),
    Curve("b", (16, 32, 64, 96), (0.9, 0.91, 0.92, 0.93), (0.5, 0.6, 0.7, 0.9)),
)
PROFILE = Profile("t", "n", "b", "cpu", "f32", GROUPS, "top1", 0.93, CURVES, (({"a": 32}, 0.8),), ({"a": 0.5},), "2026")
LATENCY = Latency(DEVICE, "f32", 0.5, 0.49, 0.51, 1.0, 1.1, 1.2, 2.0, 2.0, 2.2, 900.0, 40)
CONDITIONS = Conditions(0.5, 2000.0)
FULL = replace(LATENCY, settings={"threads": "1"}, before=CONDITIONS, after=CONDITIONS, energy=Energy(1.5, 3.0, "rapl"))
MEASUREMENT = Measurement(Candidate({"a": 0.5}), {"a": 32}, Accuracy("top1", 0.92), 0.01, (LATENCY,), 5, 6, 7)


@given(st.dictionaries(st.text("abz_09", min_size=1), st.floats(0, 1, exclude_max=True)), st.integers(0, 9), share)
def test_candidates_survive_json(ratios: dict[str, float], seed: int, epochs: float) -> None:
    """A candidate read back from JSON is the same to the last bit."""
    one = Candidate(ratios, epochs=epochs, seed=seed)
    assert Candidate.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "value",
    [
        MEASUREMENT,
        FULL,
        PROFILE,
        Goal("most_accurate", max_latency_ms=1.5),
        Score(0.4, True, {"slack": 0.1}),
        Failure(FailureKind.DISK_FULL, "export", "no space\nleft"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_survive_json(value: object) -> None:
    """Every value of a trial read back from JSON equals the one written."""
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda: replace(MEASUREMENT, latencies=()), "latencies: got ()"),
        (lambda: replace(LATENCY, ratio=0.0), "latency_ratio: got 0.0; give a number above 0"),
        (lambda: replace(LATENCY, p50_ms=9.0), "percentiles in rising order"),
        (lambda: Energy(-1.0, 1.0, "rapl"), "energy_mj: got -1.0; give a number of at least 0"),
        (lambda: Energy(1.0, 1.0, ""), "energy_source: got ''"),
        (lambda: Conditions(load=-1.0), "conditions.load: got -1.0"),
        (lambda: Accuracy("top1", float("nan")), "val_top1: got nan"),
        (lambda: Accuracy("top1", 92.0), "val_top1: got 92.0"),
        (lambda: Candidate({"a.b": 0.5}), "letters, digits and underscores"),
        (lambda: Goal("quickest"), "objective.kind: got 'quickest'; give one of fastest"),
        (lambda: Goal("most_accurate"), "objective.max_latency_ratio: got None"),
        (lambda: Goal.from_parameters({"max_dorp": 0.1}), "objective.max_dorp: got 0.1"),
        (lambda: Goal(max_drop=float("inf")), "objective.max_drop: got inf"),
        (lambda: replace(PROFILE, version=2), "make the profile anew"),
        (lambda: GroupSpec("a", 8, 8, "guess"), "proof of a: got 'guess'; give silence or influence, or leave it out"),
        (lambda: Curve("a", (32, 16), (0.1, 0.2), (0.5, 0.6)), "ascending"),
    ],
)
def test_wrong_values_are_refused_where_they_are_built(change: object, line: str) -> None:
    """A value that breaks a rule is refused in one line with the field and the value got."""
    with pytest.raises(BadInput) as caught:
        change()  # type: ignore[operator]
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_host_is_to_blame_or_the_candidate() -> None:
    """Only infeasible and diverged are the candidate's doing and teach the controller."""
    teaching = {kind for kind in FailureKind if Failure(kind, "train", "x").teaches}
    assert teaching == {FailureKind.INFEASIBLE, FailureKind.DIVERGED}


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    """A profile read from its file equals the one saved, and a broken file is named."""
    PROFILE.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == PROFILE
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match=r"broken\.json"):
        Profile.load(tmp_path / "broken.json")


@pytest.mark.parametrize("goal", [Goal(), Goal("most_accurate", max_latency_ratio=0.6), Goal("tradeoff")])
def test_warm_points_start_dense_and_differ(goal: Goal) -> None:
    """A search starts with the dense network, three uniform and four greedy points, no two with the same channels."""
    points = warm_points(PROFILE, goal)
    kept = [tuple(PROFILE.space.kept(ratios).values()) for ratios in points]
    assert kept[0] == (32, 64, 128)
    assert len(kept) == len(set(kept)) == 8


def test_greedy_points_prune_what_costs_least_first() -> None:
    """The mildest greedy point prunes the group that gains the most latency for the least metric."""
    mild = PROFILE.space.kept(warm_points(PROFILE, Goal(max_drop=0.01))[4])
    assert mild["b"] < 128 and mild["stem"] == 32


SCHEMA = json.loads((ROOT / "docs" / "profile.schema.json").read_text())


def test_a_profile_is_as_its_schema_says() -> None:
    """What `prunefleet plan` writes can be read by whoever knows the schema alone; every key is in it, and needed."""
    document = json.loads(json.dumps(PROFILE.to_json()))
    jsonschema.validate(document, SCHEMA)
    jsonschema.validate({**document, "fingerprint": DEVICE.to_json()}, SCHEMA)
    several = replace(PROFILE, devices=(DeviceLatencies(DEVICE, (({"a": 32}, 0.8),)),) * 2)
    jsonschema.validate(json.loads(json.dumps(several.to_json())), SCHEMA)
    for key in document.keys() - {"fingerprint", "devices"}:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in document.items() if name != key}, SCHEMA)


@pytest.mark.parametrize("proof", ["silence", "influence", None])
def test_a_profile_says_how_each_group_was_proven(proof: str | None) -> None:
    """The proof survives JSON and its schema, and a profile without one, of an older release, is read and is equal."""
    groups = tuple(replace(group, proof=proof) for group in GROUPS)
    document = json.loads(json.dumps(replace(PROFILE, groups=groups).to_json()))
    jsonschema.validate(document, SCHEMA)
    assert {group.proof for group in Profile.from_json(document).groups} == {proof}
    for group in document["groups"]:
        del group["proof"]
    jsonschema.validate(document, SCHEMA)
    assert Profile.from_json(document) == PROFILE and Profile.from_json(document).groups[0].proof is None


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"extra": 1}, {"dense_metric": 1.5}, {"groups": []}, {"warm": [{"a": 1.0}]}]
)
def test_another_profile_is_not(change: dict[str, Any]) -> None:
    """Another version, an unknown key, a value out of range."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(json.dumps(PROFILE.to_json())), **change}, SCHEMA)
