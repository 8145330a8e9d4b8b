"""Searches beside each other on real trials: who searches, how each is asked and told, and whose turn it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.sweepfile import PROGRAM

from studies.table.study import RESULTS, Table

WORK = "bench-live"
HEAD, PROFILE, TRIAL = "head", "profile", "trial"
OURS, WANDB, RANDOM, UNIFORM = METHODS = ("prunefleet", "wandb", "random", "uniform")
APART = 100
"""Between the first fine-tuning seeds of two searches, so that runs of a candidate again do not meet the other's."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is compared: each method's search with each of `seeds` has so many `trials`, a sitting so many seconds.

    `mixed` candidates are timed before the first trial; unless given, as many as `prunefleet plan` times.
    """

    network: str
    folder: Callable[[], Path]
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 40
    sitting_s: float = 3.0
    mixed: int | None = None

    @property
    def table(self) -> Table:
        """Where the rows are."""
        return Table(self.folder() / "live.jsonl")


SETTINGS = {
    "resnet20": Setting("resnet20", lambda: RESULTS),
    "tiny": Setting("tiny", lambda: cache_folder() / WORK, seeds=(0, 1), trials=4, sitting_s=0.2, mixed=4),
}


@dataclass(frozen=True)
class Turn:
    """One trial of one search."""

    seed: int
    place: int
    method: str

    @property
    def search(self) -> tuple[str, int]:
        """The search that it is a trial of."""
        return self.method, self.seed


def turns(setting: Setting) -> list[Turn]:
    """All trials: seed by seed, one trial of each method in turn, so that any beginning is a fair comparison."""
    return [
        Turn(seed, place, method) for seed in setting.seeds for place in range(setting.trials) for method in METHODS
    ]


@dataclass(frozen=True)
class Proposal:
    """What a search wants tried: kept channels by group, and the seed of fine-tuning."""

    kept: Mapping[str, int]
    tuning_seed: int

    @property
    def key(self) -> tuple[object, ...]:
        """Equal where the trial would be the same."""
        return (*self.kept.items(), self.tuning_seed)


class Search(Protocol):
    """One search of one method; it is told the validation metric and the latency, and nothing else."""

    def ask(self) -> Proposal:
        """The next candidate."""

    def tell(self, row: Mapping[str, Any]) -> None:
        """What the candidate that was asked for last came to."""

    def recommended(self) -> int | None:
        """The place of the trial that the search itself thinks best of; None where it does not say."""


class Swept:
    """A sweep of our controller, W&B's engine or random draws, all by the same sweep file but for the method."""

    def __init__(self, method: str, seed: int, head: Mapping[str, Any], profile: Profile) -> None:
        self._says, self._space = method == OURS, profile.space
        self._dense = head["dense"]["validation"]
        config = sweep_file(method, seed, profile, Goal.from_json(head["goal"]))
        self._search = AskTell(config, profile, f"live-{seed}")
        self._waiting = ""

    def ask(self) -> Proposal:
        """See `Search`."""
        found = self._search.ask()
        assert found, "nothing is left to try: give the search fewer trials than its space has candidates"
        ((self._waiting, suggestion),) = found.items()
        return Proposal(self._space.kept(suggestion.config["ratio"]), suggestion.config["recipe"]["seed"])

    def tell(self, row: Mapping[str, Any]) -> None:
        """See `Search`."""
        if "failed" in row:
            self._search.tell(self._waiting, outcome="diverged")
            return
        # The profile's dense metric is of fewer images than a trial's: what must agree is the drop.
        metric = row["validation"]
        self._search.tell(self._waiting, row["ratio"], metric, drop=self._dense - metric)

    def recommended(self) -> int | None:
        """See `Search`."""
        found = self._search.recommend() if self._says else None
        return None if found is None else [trial.name for trial in self._search.trials].index(found.trial)


class Ladder:
    """Aligned uniform candidates from wide to narrow, then again with other seeds of fine-tuning."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self._rungs, self._seed, self._asked = profile.space.uniform_ladder(), tuning_seed(seed), 0

    def ask(self) -> Proposal:
        """See `Search`."""
        again, rung = divmod(self._asked, len(self._rungs))
        self._asked += 1
        return Proposal(self._rungs[rung], self._seed + again)

    def tell(self, row: Mapping[str, Any]) -> None:
        """See `Search`."""

    def recommended(self) -> None:
        """See `Search`."""


def tuning_seed(seed: int) -> int:
    """The seed of fine-tuning that a search begins with; runs of a candidate again count up from it."""
    return APART * seed


def sweep_file(method: str, seed: int, profile: Profile, goal: Goal) -> dict[str, Any]:
    """What a user would write for that method, the search space as `prunefleet plan` fills it in."""
    constants = {name: {"value": each} for name, each in goal.to_json().items() if each is not None}
    constants.pop("devices", None)
    return {
        "program": PROGRAM,
        "method": "random" if method == RANDOM else "bayes",
        "metric": {"name": "score", "goal": "maximize"},
        "parameters": {
            "ratio": profile.space.parameters(),
            "objective": {"parameters": constants},
            "recipe": {"parameters": {"seed": {"value": tuning_seed(seed)}}},
            **({"engine": {"value": "wandb"}} if method == WANDB else {}),
        },
    }


def search_of(method: str, seed: int, head: Mapping[str, Any], profile: Profile) -> Search:
    """A method's search with a seed, at its beginning."""
    return Ladder(seed, profile) if method == UNIFORM else Swept(method, seed, head, profile)
