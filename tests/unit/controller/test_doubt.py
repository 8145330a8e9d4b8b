"""What the search makes of noise and of a profile that misleads: it measures again, and lets the curves go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.infra.controller.models.accuracy import drop_model
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import Space

from support.controller import DENSE, GROUPS, NAMES, Problem, kept_of, sweep, sweep_config

PROBLEM = Problem.seeded(0)
PROFILE = PROBLEM.profile()
SPEC = sweep(profile=PROFILE)


def suggest(trials: list[StoredTrial], place: int, spec: SweepSpec = SPEC) -> Suggestion:
    found = BayesSearch().suggest(spec, trials, SPEC.seed(place))
    assert isinstance(found, Suggestion)
    return found


def crossed(profile: Profile) -> Profile:
    """Each group has the curve of another one, by share kept: those that lose most seem to lose least."""
    order = np.argsort([curve.metric[0] for curve in profile.curves])
    told = []
    for mine, other in zip(order, order[::-1], strict=True):
        curve, wrong = profile.curves[mine], profile.curves[other]
        width, spread = GROUPS[mine].width, np.array(wrong.kept) / GROUPS[other].width
        metric = np.interp(np.array(curve.kept) / width, spread, wrong.metric)
        told.append(replace(curve, metric=tuple(map(float, metric))))
    return replace(profile, curves=tuple(sorted(told, key=lambda curve: NAMES.index(curve.group))))


def answers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Kept channels of random candidates, and their drops with noise."""
    rng, space = np.random.default_rng(3), Space(GROUPS)
    kept = [space.kept({name: float(rng.uniform(0, 0.6)) for name in NAMES}) for _ in range(count)]
    drops = [PROBLEM.drop(each) + 0.001 * float(rng.normal()) for each in kept]
    return np.array([list(each.values()) for each in kept], dtype=float), np.array(drops)


def test_curves_that_mislead_are_let_go() -> None:
    """Trials that speak against the profile's curves end their part in the model; those that agree keep it."""
    kept, drops = answers(40)
    assert drop_model(crossed(PROFILE), kept, drops).let_go
    assert not drop_model(PROFILE, kept, drops).let_go


def test_few_trials_leave_the_curves_alone() -> None:
    """Before there are trials to hold them against, the curves are believed."""
    kept, drops = answers(3)
    assert not drop_model(crossed(PROFILE), kept, drops).let_go


def test_a_suggestion_says_that_curves_were_let_go() -> None:
    """The reason of a trial that was chosen without the profile's curves says so."""
    profile = crossed(PROFILE)
    kept, drops = answers(40)
    trials = []
    for place, (counts, drop) in enumerate(zip(kept.tolist(), drops, strict=True)):
        channels = dict(zip(NAMES, map(int, counts), strict=True))
        ratios = {f"ratio.{name}": 1 - channels[name] / width for name, width in zip(NAMES, kept_widths(), strict=True)}
        trials.append(
            StoredTrial(f"t{place}", ratios, "finished", None, drop, PROBLEM.latency(channels), DENSE - drop, "scored")
        )
    spec = sweep(profile=replace(profile, warm=()))
    assert suggest(trials, 40, spec).why["curves"] == "let go"
    assert "curves" not in suggest(trials, 40, sweep(profile=replace(PROFILE, warm=()))).why


def kept_widths() -> list[int]:
    return [group.width for group in GROUPS]


@pytest.fixture(scope="module")
def small() -> list[Suggestion]:
    """All that a sweep of ten candidates with a noisy metric is given until nothing is left."""
    ratios = {"stem": {"value": 0.5}, "a_in": {"values": [0.25, 0.5]}, "b_in": {"min": 0.2, "max": 0.6}}
    spec = sweep(profile=PROFILE, parameters={**sweep_config()["parameters"], "ratio": {"parameters": ratios}})
    problem, trials, given = replace(PROBLEM, noise=0.003), list[StoredTrial](), list[Suggestion]()
    for place in range(60):
        found = BayesSearch().suggest(spec, trials, place)
        if isinstance(found, Exhausted):
            return given
        given.append(found)
        trials.append(problem.trial(f"t{place}", found.params, kept_of(found), place))
    raise AssertionError("a sweep of ten candidates goes on for ever")


def test_a_candidate_is_measured_again_with_another_seed(small: list[Suggestion]) -> None:
    """A second run of the same channels counts its predecessors and has another seed; a third one is the last."""
    seen: dict[str, int] = {}
    for found in small:
        before = seen.get(str(kept_of(found)), 0)
        assert found.repeat == before
        assert found.config.get("recipe", {}).get("seed", 0) == before
        assert (found.why["kind"] == "replicate") == (before > 0)
        seen[str(kept_of(found))] = before + 1
    assert len(seen) == 10
    assert 1 < max(seen.values()) <= 3
