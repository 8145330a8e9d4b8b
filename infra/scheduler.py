"""Our search beside wandb.ai or a W&B Server, as the Optuna engine of `wandb sweep-scheduler`.

The sweep's file says `method: custom` and `scheduler: {engine: optuna, source: search.py, optimizer: study,
search_space: candidate}`, and `search.py` holds `from prunefleet import candidate, study`. Optuna alone would see
finished runs with a score; here each choice is made from all runs as `wandb.Api` tells them, skipped ones and failures
included, and Optuna keeps those that it was given and the server does not show yet.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from prunefleet.infra import wandb_api
from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec, suggest_many
from prunefleet.infra.controller.engines.registry import controller
from prunefleet.infra.controller.pruning.channels import ChannelGrid
from prunefleet.infra.hub.suggest.input import PREFIX, PROFILE_FILE, profile_name, trial_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile

SEARCHED = "bayes"  # what `method: custom` stands for here
CANDIDATE = "candidate"  # the attribute of Optuna's trials that holds what was chosen, by leaf name
FIXED = "fixed_params"  # Optuna's own attribute of a trial that was enqueued: a run that was there before
EXPECTED = ("drop", "latency_ratio")
HANDED_OUT = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)

log = logging.getLogger("optuna.prunefleet")  # the command shows what Optuna logs


class SweepInfo(Protocol):
    """What the client tells of the sweep that it schedules."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def entity(self) -> str:
        """Whose it is."""
        ...

    @property
    def project(self) -> str:
        """Where it is."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """Its file."""
        ...


def study(sweep: SweepInfo) -> optuna.Study:
    """The study that `scheduler.optimizer` names; its sampler is our search.

    Raises `BadInput` for a sweep that cannot be searched; the command prints that line and ends.
    """
    best = [str(metric.get("goal", "minimize")).lower() for metric in _metrics(sweep.config)]
    directions = [StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE for goal in best]
    return optuna.create_study(
        directions=directions, sampler=ScheduledSampler(sweep), pruner=optuna.pruners.NopPruner()
    )


def candidate(trial: optuna.Trial) -> Mapping[str, Any]:
    """The whole configuration of the next run: what `scheduler.search_space` names.

    Nothing for a run that was there before, and for the trial of no study that the client tries this function with.
    """
    sampler = trial.study.sampler
    return sampler.choose(trial) if isinstance(sampler, ScheduledSampler) else {}


class ScheduledSampler(optuna.samplers.BaseSampler):
    """The search of one sweep in the place of Optuna's sampler. `read` tells the sweep's runs as they are now."""

    def __init__(self, sweep: SweepInfo, read: Callable[[str], wandb_api.RemoteSweep] = wandb_api.read_sweep) -> None:
        self.path = f"{sweep.entity}/{sweep.project}/{sweep.id}"
        self.config = _searched(sweep.config)
        self.spec = _spec(sweep, self.config)
        self._controller = controller(self.spec.method, self.spec.engine)
        self._read = read
        self._known: list[StoredTrial] | None = None
        self._next: Suggestion | None = None
        self._adopted = False

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether nothing is left to try; the client asks before each run, so the answer is thought of here."""
        found = self._suggest(study)
        self._next = found if isinstance(found, Suggestion) else None
        if isinstance(found, Exhausted):
            log.info("%s", found.reason)
        return isinstance(found, Exhausted)

    def choose(self, trial: optuna.Trial) -> Mapping[str, Any]:
        """The configuration of a trial. Raises `RuntimeError` where nothing is left, which `is_exhausted` told."""
        if self._adopted:
            return {}
        found = self._next or self._suggest(trial.study)
        self._next = None
        if isinstance(found, Exhausted):
            raise RuntimeError(found.reason)
        trial.set_user_attr(CANDIDATE, dict(found.params))
        trial.set_user_attr("why", dict(found.why))
        log.info("Trial %d: %s", trial.number, _in_words(found.why))
        return found.config

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Optuna begins a trial; one with parameters given stands for a run that was there before."""
        self._adopted = FIXED in trial.system_attrs

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: candidates are chosen as a whole."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: candidates are chosen as a whole."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refused: candidates are chosen as a whole."""
        raise BadInput("scheduler.search_space", param_name, "name the function `candidate` of prunefleet")

    def _suggest(self, study: optuna.Study) -> Suggestion | Exhausted:
        trials = self._trials()
        return suggest_many(self._controller, self.spec, [*trials, *self._unseen(study, trials)], 1)[0]

    def _trials(self) -> list[StoredTrial]:
        """The sweep's runs; while the server is away as it last told them, since an error would end the command."""
        try:
            runs = self._read(self.path).runs
        except wandb_api.AWAY as error:
            if self._known is None:
                raise
            log.warning("the runs of %s cannot be read, so what was known serves: %s", self.path, error)
            return self._known
        told = [(run.name, run.state, run.config, run.summary) for run in runs]
        self._known = [trial_of(*each, self.config, self.spec.space) for each in told]
        return self._known

    def _unseen(self, study: optuna.Study, trials: list[StoredTrial]) -> list[StoredTrial]:
        """What was handed out and is no run of the server's yet."""
        space = self.spec.space
        begun = Counter(space.point(trial.params) for trial in trials)
        unseen = []
        for trial in study.get_trials(deepcopy=False, states=HANDED_OUT):
            params = trial.user_attrs.get(CANDIDATE)
            if params is None:
                continue
            point = space.point(params)
            begun[point] -= 1
            if begun[point] < 0:
                unseen.append(StoredTrial(f"asked-{trial.number}", params, "pending"))
        return unseen


def _searched(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep's file as one that our controllers search."""
    return {**config, "method": SEARCHED, "metric": _metrics(config)[0]}


def _spec(sweep: SweepInfo, config: Mapping[str, Any]) -> SweepSpec:
    """The sweep as our controllers know sweeps; without its profile where that cannot be had."""
    try:
        found = SweepSpec.from_config(sweep.id, config, _profile(sweep))
    except wandb_api.AWAY as error:
        # Whether the profile or the sweep is at fault shows when the profile is left out.
        found = SweepSpec.from_config(sweep.id, config)
        log.warning("%s; the search goes on without a profile", error)
    if found.profile is not None:
        ChannelGrid(found, found.profile)  # a group that it does not know is refused now, not at the first run
    return found


def _metrics(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sweep's metrics, the first of which the search improves where it has no profile."""
    return list(config.get("metrics") or [config.get("metric") or {}])


def _profile(sweep: SweepInfo) -> Profile | None:
    name = profile_name(sweep.config)
    if name is None:
        return None
    if name == "latest":
        newest = wandb_api.newest_artifact(sweep.entity, sweep.project, "profile", PREFIX)
        if newest is None:
            raise BadInput("parameters.profile", name, "make a profile in this project with `prunefleet plan`")
        name = newest
    artifact = name if name.count("/") == 2 else f"{sweep.entity}/{sweep.project}/{name.rpartition('/')[2]}"
    with tempfile.TemporaryDirectory() as folder:
        return Profile.load(wandb_api.download(artifact, Path(folder)) / PROFILE_FILE)


def _in_words(why: Mapping[str, Any]) -> str:
    """Why a candidate was chosen, in one line."""
    told = [f"{name.replace('_', ' ')} {why[name]['expected']:.4g}" for name in EXPECTED if name in why]
    told += [f"score {why['score']:.4g}"] if "score" in why else []
    return f"{why.get('kind', 'chosen')}{', expects ' if told else ''}{', '.join(told)}"
