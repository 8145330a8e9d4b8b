"""Who searches on the surrogates of the table: each asks for candidates and is told what they measured.

Other engines see continuous ratios, of which the nearest network on the channel grid is tried. W&B's takes one number:
the gain in percent of the dense latency, or in points of the metric, less 50 for each point or share beyond the limit,
which has no step at the limit as our own score has. Optuna's take the limit as a constraint.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import optuna

from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.infra.controller.engines.wandb_engine import seeded
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.profiles.profile import Profile, warm_points
from prunefleet.objective.profiles.space import Space

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # written for an older pydantic
    import sweeps

Kept = Mapping[str, int]
BEYOND = 50.0
STARTUP = 10
OURS, BASE, RANDOM, UNIFORM = "prunefleet", "wandb", "random", "uniform"
PLAYERS = (OURS, BASE, "optuna gp", "optuna tpe", RANDOM, UNIFORM)


class Player(Protocol):
    """A search: asked for one candidate at a time, each with a name that its result comes back under."""

    def ask(self) -> tuple[str, Kept] | None:
        """The next candidate; None where there is nothing left to try."""

    def tell(self, name: str, drop: float, ratio: float) -> None:
        """What a candidate measured: the drop on validation, a fraction, and its latency over the dense one's."""

    def recommend(self) -> str | None:
        """The candidate that the search itself thinks best of; None where it does not say."""


def player(name: str, space: Space, profile: Profile, goal: Goal, seed: int) -> Player:
    """A search from its beginning."""
    if name == OURS:
        return Ours(space, profile, goal, seed)
    if name == BASE:
        return Wandb(space, goal, seed)
    if name == RANDOM:
        return Random(space, seed)
    if name == UNIFORM:
        return Uniform(space)
    return Optuna(name, space, goal, seed)


def beyond(drop: float, ratio: float, goal: Goal) -> float:
    """How far beyond its limit a candidate is: points of the metric, or a share of the limit on latency."""
    if goal.kind == Kind.FASTEST:
        return 100 * (drop - (goal.max_drop or 0.0))
    assert goal.max_latency_ratio is not None
    return ratio / goal.max_latency_ratio - 1


def gain(drop: float, ratio: float, goal: Goal) -> float:
    """What a goal wants most of, in percent of the dense latency or in points of the metric."""
    return -100 * (ratio if goal.kind == Kind.FASTEST else drop)


class Ours:
    """The product's controller, with the profile of the table, and the limits' start points for this goal."""

    def __init__(self, space: Space, profile: Profile, goal: Goal, seed: int) -> None:
        constants = {name: {"value": value} for name, value in goal.to_json().items() if name != "devices"}
        config = {
            "method": "bayes",
            "metric": {"name": "score", "goal": "maximize"},
            "parameters": {
                "ratio": space.parameters(),
                "objective": {
                    "parameters": {name: each for name, each in constants.items() if each["value"] is not None}
                },
            },
        }
        self._dense = profile.dense_metric
        self._search = AskTell(config, replace(profile, warm=warm_points(profile, goal)), f"table-{seed}")
        self._space = space

    def ask(self) -> tuple[str, Kept] | None:
        """The next candidate, read from its ratios as an agent reads them."""
        for name, found in self._search.ask(1).items():
            ratios = {spec.name: float(found.params.get(f"ratio.{spec.name}", 0.0)) for spec in self._space.groups}
            return name, self._space.kept(ratios)
        return None

    def tell(self, name: str, drop: float, ratio: float) -> None:
        """The metric is told against the profile's dense one, so that the drop is as it was measured."""
        self._search.tell(name, ratio, self._dense - drop)

    def recommend(self) -> str | None:
        """What the models think best of."""
        found = self._search.recommend()
        return None if found is None else found.trial


class _Numbered:
    """Names candidates by number, and recommends none."""

    def __init__(self, space: Space) -> None:
        self.space, self.asked = space, 0
        self.names = [spec.name for spec in space.groups]

    def named(self, kept: Kept) -> tuple[str, Kept]:
        """A candidate with the next number."""
        self.asked += 1
        return str(self.asked - 1), kept

    def tell(self, name: str, drop: float, ratio: float) -> None:
        """Nothing is learnt."""

    def recommend(self) -> str | None:
        """Whoever searches takes what measured best."""
        return None


class Random(_Numbered):
    """Each group's ratio by itself, evenly."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self._random = np.random.default_rng([seed, 12345])

    def ask(self) -> tuple[str, Kept] | None:
        """One more."""
        ratios = self._random.uniform(0, self.space.max_ratio, len(self.names)).tolist()
        return self.named(self.space.kept(dict(zip(self.names, ratios, strict=True))))


class Uniform(_Numbered):
    """Every group pruned by the same ratio, on the grid, from the dense network down; then there is nothing left."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._rungs = space.uniform_ladder()

    def ask(self) -> tuple[str, Kept] | None:
        """The next rung."""
        return self.named(self._rungs[self.asked]) if self.asked < len(self._rungs) else None


class Wandb(_Numbered):
    """W&B's published engine on one number."""

    def __init__(self, space: Space, goal: Goal, seed: int) -> None:
        super().__init__(space)
        self._goal, self._seed = goal, seed
        self._runs: dict[str, sweeps.SweepRun] = {}
        self._config = {
            "method": "bayes",
            "metric": {"name": "gain", "goal": "maximize"},
            "parameters": {
                name: {"distribution": "uniform", "min": 0.0, "max": space.max_ratio} for name in self.names
            },
        }

    def ask(self) -> tuple[str, Kept] | None:
        """The engine's next run, the pending ones in sight."""
        with seeded(self._seed * 1000 + self.asked), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its process' fit, which it takes as it comes
            run = sweeps.next_run(self._config, list(self._runs.values()))
        name, kept = self.named(self.space.kept({each: run.config[each]["value"] for each in self.names}))
        run.name, run.state = name, "running"
        self._runs[name] = run
        return name, kept

    def tell(self, name: str, drop: float, ratio: float) -> None:
        """A finished run."""
        excess = max(0.0, beyond(drop, ratio, self._goal))
        self._runs[name].state = "finished"
        self._runs[name].summary_metrics = {"gain": gain(drop, ratio, self._goal) - BEYOND * excess}


class Optuna(_Numbered):
    """Optuna's sampler by Gaussian processes, or by Parzen estimators, with the limit as a constraint."""

    def __init__(self, which: str, space: Space, goal: Goal, seed: int) -> None:
        super().__init__(space)
        self._goal = goal
        self._trials: dict[str, optuna.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        common: dict[str, Any] = {"seed": seed, "n_startup_trials": STARTUP}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = (
                optuna.samplers.GPSampler(deterministic_objective=False, **common)
                if which == "optuna gp"
                else optuna.samplers.TPESampler(multivariate=True, constant_liar=True, **common)
            )
            self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self._axes: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.FloatDistribution(0.0, space.max_ratio) for name in self.names
        }

    def ask(self) -> tuple[str, Kept] | None:
        """The sampler's next trial."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask(self._axes)
        name, kept = self.named(self.space.kept({each: trial.params[each] for each in self.names}))
        self._trials[name] = trial
        return name, kept

    def tell(self, name: str, drop: float, ratio: float) -> None:
        """A finished trial, with how far beyond the limit it is."""
        trial = self._trials.pop(name)
        trial.set_constraint("limit", beyond(drop, ratio, self._goal))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.tell(trial, gain(drop, ratio, self._goal))
