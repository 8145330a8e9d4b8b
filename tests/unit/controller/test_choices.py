"""Parameters of few values beside the ratios, such as the precision: part of the candidate, and of the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunefleet.infra.controller.contract import StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.infra.controller.pruning.channels import ChannelGrid, read
from prunefleet.infra.controller.pruning.choices import MOST_VALUES
from prunefleet.infra.controller.pruning.engine import recommend
from prunefleet.infra.controller.pruning.search import PruningSearch
from prunefleet.objective.goals import score

from support.controller import DENSE, GOAL, WIDTHS, Problem, kept_of, sweep, sweep_config

PROBLEM = Problem.seeded(3)
PROFILE = PROBLEM.profile()
PRECISIONS = ["f32", "int8"]
Effect = Callable[[Mapping[str, Any], float, float], tuple[float, float]]
"""What drop and latency ratio become with a trial's parameters."""


def _spec(block: str = "measure", name: str = "precision", values: Any = PRECISIONS) -> SweepSpec:
    parameters = {**sweep_config()["parameters"], block: {"parameters": {name: {"values": list(values)}}}}
    return sweep(profile=PROFILE, parameters=parameters)


def _tried(name: str, answer: Suggestion, effect: Effect) -> StoredTrial:
    trial = PROBLEM.trial(name, answer.params, kept_of(answer), 0)
    assert trial.drop is not None and trial.latency_ratio is not None
    drop, ratio = effect(answer.params, trial.drop, trial.latency_ratio)
    value = float(score.values(DENSE - drop, drop, ratio, GOAL))
    return replace(trial, drop=drop, latency_ratio=ratio, metric=DENSE - drop, value=value)


def _play(spec: SweepSpec, effect: Effect, count: int = 22) -> tuple[list[StoredTrial], list[Suggestion]]:
    trials: list[StoredTrial] = []
    answers: list[Suggestion] = []
    for place in range(count):
        answer = BayesSearch().suggest(spec, trials, spec.seed(place))
        assert isinstance(answer, Suggestion)
        answers.append(answer)
        trials.append(_tried(f"t{place}", answer, effect))
    return trials, answers


def faster(params: Mapping[str, Any], drop: float, ratio: float) -> tuple[float, float]:
    """INT8 takes two thirds of the time and loses a little."""
    return (drop + 0.003, ratio * 0.65) if params["measure.precision"] == "int8" else (drop, ratio)


def ruinous(params: Mapping[str, Any], drop: float, ratio: float) -> tuple[float, float]:
    """INT8 takes hardly less time and loses all that may be lost."""
    return (drop + 0.03, ratio * 0.97) if params["measure.precision"] == "int8" else (drop, ratio)


@pytest.mark.parametrize(("effect", "better"), [(faster, "int8"), pytest.param(ruinous, "f32", marks=pytest.mark.slow)])
def test_the_better_precision_is_found(effect: Effect, better: str) -> None:
    """Warm points are of the profile's precision; soon the other one is tried, and the better one is gone on with."""
    spec = _spec()
    trials, answers = _play(spec, effect)
    warm = [answer for answer in answers if answer.why["kind"] == "warm"]
    assert {answer.params["measure.precision"] for answer in warm} == {"f32"}
    late = [answer.config["measure"]["precision"] for answer in answers[-6:]]
    assert late.count(better) >= 4
    found = recommend(spec, PROFILE, GOAL, trials, 1)
    assert found is not None
    assert next(t for t in trials if t.name == found.trial).params["measure.precision"] == better
    assert set(found.kept) == set(WIDTHS)


def test_models_tell_a_precision_from_another() -> None:
    """What one precision costs and saves is foretold for channels that were tried at the other one alone."""
    spec = _spec()
    trials, _ = _play(spec, faster, 28)
    # A trial's noise is a third of what is to be told, and precisions are tried at different candidates: several looks.
    looks = [_at_another(spec, trials[:count], "f32") for count in (16, 20, 24, 28)]
    assert [ratio for _, ratio in looks] == pytest.approx([0.65] * len(looks), rel=0.06)
    assert 0.001 < np.median([at_other for at_other, _ in looks]) < 0.006


def _at_another(spec: SweepSpec, trials: list[StoredTrial], value: Any) -> tuple[float, float]:
    """By what the other value of the choice changes drop (difference) and latency (factor) where `value` was tried.

    Median over the tried candidates of small drops.
    """
    space = ChannelGrid(spec, PROFILE)
    search = PruningSearch(space, PROFILE, GOAL, read(space, trials), 1)
    small = [trial for trial in trials if value in trial.params.values() and abs(trial.drop or 1) < 0.05]
    kept = np.array([space.tried(trial) for trial in small], dtype=float)
    other = kept.copy()
    other[:, -1] = 1 - kept[:, -1]
    (drop, ratio), (after, quick) = search._middle(kept), search._middle(other)
    return float(np.median(after - drop)), float(np.median(quick / ratio))


def test_the_same_channels_at_another_precision_are_another_candidate() -> None:
    """It may be tried once more; its precision is told apart in what is tried, pending and waited for."""
    spec = _spec()
    space = ChannelGrid(spec, PROFILE)
    ratios = {axis.leaf.name: axis.ratios[0] for axis in space.axes if axis.leaf is not None}
    both = [StoredTrial(each, ratios | {"measure.precision": each}, "running") for each in PRECISIONS]
    f32, int8 = (space.tried(trial) for trial in both)
    assert f32 is not None and int8 is not None
    assert f32[:-1] == int8[:-1] and (f32[-1], int8[-1]) == (0, 1)
    for kept in (f32, int8):
        point = space.exact(kept)
        assert point is not None and tuple(space.kept(np.array([point]))[0]) == kept


def test_a_value_that_the_sweep_does_not_have_teaches_nothing() -> None:
    """A prior run at another precision, or with none, is no candidate of this sweep."""
    space = ChannelGrid(_spec(), PROFILE)
    ratios = {axis.leaf.name: axis.ratios[0] for axis in space.axes if axis.leaf is not None}
    assert space.tried(StoredTrial("a", ratios | {"measure.precision": "bf16"}, "finished")) is None
    assert space.tried(StoredTrial("b", ratios, "finished")) is None


def test_what_the_recipe_changes_does_not_touch_latency() -> None:
    """Epochs of fine-tuning are a part of the candidate, yet a latency is the same whatever they are."""
    spec = _spec("recipe", "epochs", [1, 3])

    def effect(params: Mapping[str, Any], drop: float, ratio: float) -> tuple[float, float]:
        return (drop * 0.6, ratio) if params["recipe.epochs"] == 3 else (drop, ratio)

    trials, _ = _play(spec, effect, 16)
    assert {trial.params["recipe.epochs"] for trial in trials} == {1, 3}
    space = ChannelGrid(spec, PROFILE)
    assert space.timed == space.groups == len(space.widths) - 1
    gained, ratios = _at_another(spec, trials, 1)
    assert ratios == 1 and gained < -0.001


def test_many_values_are_drawn_at_random() -> None:
    """A parameter of more values than a few trials can tell apart, a seed, or a range is no choice."""
    many = [0.1 * place for place in range(MOST_VALUES + 1)]
    for spec in (_spec("recipe", "lr", many), _spec("recipe", "seed", [0, 1])):
        space = ChannelGrid(spec, PROFILE)
        assert not space.choices and len(space.others) == 1
        answer = BayesSearch().suggest(spec, [], 0)
        assert isinstance(answer, Suggestion) and space.others[0].name in answer.params


def test_the_profiles_precision_needs_no_mark() -> None:
    """Whatever stands first in the file, trials at the profile's precision are what the profile speaks of."""
    space = ChannelGrid(_spec(values=["int8", "f32"]), PROFILE)
    assert [space.choices[0].values[point[-1]] for point in space.warm(PROFILE)] == ["f32"] * len(PROFILE.warm)
    assert not space.kept(np.array([space.warm(PROFILE)[0]]))[0][space.groups :].any()
