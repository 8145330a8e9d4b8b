"""Other engines for `method: bayes`: what they are told, and what a sweep gets that cannot have them."""

import sys
from typing import Any

import numpy as np
import pytest

from prunefleet.infra.controller.__main__ import answer
from prunefleet.infra.controller.contract import StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.engines.registry import controller
from prunefleet.objective.errors import BadInput

HILL: dict[str, Any] = {
    "recipe": {
        "parameters": {
            "x": {"min": 0.0, "max": 1.0},
            "y": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.125},
        }
    },
    "kind": {"values": ["bad", "good"]},
}
OTHERS = ("wandb", "optuna")


def spec(engine: str, method: str = "bayes") -> SweepSpec:
    config = {"program": "prunefleet", "method": method, "metric": {"name": "score", "goal": "maximize"}}
    return SweepSpec.from_config("s", {**config, "parameters": {**HILL, "engine": {"value": engine}}})


def climb(engine: str, count: int, outcome: str = "scored") -> list[StoredTrial]:
    """Ask and answer: a hill in the middle, higher where `kind` is good."""
    sweep, trials = spec(engine), list[StoredTrial]()
    for place in range(count):
        found = controller("bayes", engine).suggest(sweep, trials, sweep.seed(place))
        assert isinstance(found, Suggestion)
        x, y, kind = (found.params[name] for name in ("recipe.x", "recipe.y", "kind"))
        value = 1 - (x - 0.5) ** 2 - (y - 0.5) ** 2 - (kind == "bad")
        trials.append(StoredTrial(f"t{place}", found.params, "finished", value, outcome=outcome))
    return trials


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_learns_from_what_it_is_told(engine: str) -> None:
    """After two dozen trials its newest ones are better than its first ones."""
    values = [float(trial.value or 0) for trial in climb(engine, 24)]
    assert np.mean(values[-6:]) > np.mean(values[:6])


@pytest.mark.parametrize("engine", OTHERS)
def test_what_a_host_lost_teaches_nothing(engine: str) -> None:
    """Trials that failed by their host's fault change no suggestion, unlike impossible ones."""
    sweep, trials = spec(engine), climb(engine, 14)
    search = controller("bayes", engine)
    told = search.suggest(sweep, trials, 1)
    lost = [StoredTrial(f"l{i}", trials[i].params, "crashed") for i in range(4)]
    lost += [StoredTrial(f"k{i}", trials[i].params, "finished", outcome="kept_failing") for i in range(4)]
    impossible = [StoredTrial(f"i{i}", trials[i].params, "finished", outcome="infeasible") for i in range(4)]
    assert search.suggest(sweep, [*trials, *lost], 1) == told
    assert search.suggest(sweep, [*trials, *impossible], 1) != told


def test_the_suggestion_says_whose_it_is() -> None:
    """The reason stored with a run names the engine, and what that expects where it tells."""
    sweep, trials = spec("wandb"), climb("wandb", 6)
    found = controller("bayes", "wandb").suggest(sweep, trials, 1)
    assert isinstance(found, Suggestion)
    assert found.why["engine"] == "wandb"
    assert -2 < found.why["value"]["expected"] < 2


def test_the_global_random_numbers_stay_as_they_were() -> None:
    """W&B's engine draws from numpy's global generator, which others of this process use as well."""
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    climb("wandb", 2)
    assert np.random.random() == expected


@pytest.mark.parametrize("engine", OTHERS)
def test_a_missing_package_is_named(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without the extra says what to install, in the sweep's own line."""
    module = f"prunefleet.infra.controller.engines.{engine}_engine"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, {"wandb": "sweeps"}.get(engine, engine), None)
    config = {
        "program": "prunefleet",
        "method": "bayes",
        "metric": {"name": "score"},
        "parameters": {**HILL, "engine": {"value": engine}},
    }
    request = {"id": 1, "sweep": {"name": "s", "config": config, "profile": None}, "trials": [], "count": 1}
    assert "install prunefleet[engines]" in answer(request)["error"]


@pytest.mark.parametrize(("engine", "method"), [("Bayes", "bayes"), ("optuna", "random"), (3, "bayes")])
def test_a_wrong_engine_is_refused(engine: Any, method: str) -> None:
    """An unknown word, or an engine beside another method, is refused by its field."""
    with pytest.raises(BadInput, match=r"parameters\.engine"):
        spec(engine, method)


@pytest.mark.parametrize("method", ["bayes", "random", "grid"])
def test_another_program_may_have_a_parameter_of_that_name(method: str) -> None:
    """The hub serves any sweep: where the program is not prunefleet, `engine` is one of its own parameters."""
    config = {
        "program": "train.py",
        "method": method,
        "metric": {"name": "loss"},
        "parameters": {"engine": {"values": ["diesel", "petrol"]}},
    }
    request = {"id": 1, "sweep": {"name": "s", "config": config, "profile": None}, "trials": [], "count": 1}
    (suggestion,) = answer(request)["suggestions"]
    assert suggestion["config"]["engine"] in ("diesel", "petrol")
