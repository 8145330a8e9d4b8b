"""What lies ready for a sweep, and how much of it its agents want."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion
from prunefleet.infra.controller.parameters import ParameterSpace
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.store.rows import AgentRow, SweepRow

MOST_READY = 32
AGENTS_EACH = 8  # one suggestion more lies ready for so many agents
PORTION_S = 1.0  # of the controller's time, to one sweep before the next one has its turn
IDLE_S = 60.0  # an agent that was silent for longer asks for nothing
NOTHING = Advice()


@dataclass
class SuggestionBuffer:
    """What lies ready for a sweep. `basis` names the answers that `ready` was made from; None asks for fresh ones.

    `older` was made from fewer answers and is handed out while nothing newer is there. `each_s` is how long the
    controller took for one suggestion. `advice` stands on the answers `advised`. `filled_for` is how many were wanted
    when nothing was missing, 0 while something is.
    """

    ready: deque[Suggestion] = field(default_factory=deque)
    older: deque[Suggestion] = field(default_factory=deque)
    each_s: float = PORTION_S
    taken: list[tuple[float, Suggestion]] = field(default_factory=list)
    basis: frozenset[tuple[object, ...]] | None = None
    exhausted: Exhausted | None = None
    advice: Advice = NOTHING
    advised: frozenset[tuple[object, ...]] | None = None
    takes: int = 0
    filled_for: int = 0

    def stocked(self, basis: frozenset[tuple[object, ...]], wanted: int) -> bool:
        """Whether it was filled for as many on that basis, and half of them still lie ready; else it is to be filled.

        A search that learns nothing is asked for the rest in one go, when that is no longer so: a large fleet's runs
        are then not read, and all sent to the controller, for each one that begins or ends.
        """
        if self.basis != basis or wanted > self.filled_for or 2 * len(self.ready) < max(wanted, 1):
            self.filled_for = 0
        return self.filled_for > 0


@dataclass(frozen=True)
class Situation:
    """A sweep as one look found it; `advised` says that its search may recommend a run, also when it has ended."""

    sweep: SweepRow
    space: ParameterSpace
    trials: Sequence[StoredTrial]
    basis: frozenset[tuple[object, ...]]
    wanted: int
    advised: bool


def not_begun(found: Situation) -> Callable[[Suggestion], bool]:
    """Tells whether a suggestion has become no run yet: there are no more of its candidate than when it was made."""
    begun = Counter(found.space.point(trial.params) for trial in found.trials)
    return lambda each: begun[found.space.point(each.params)] <= each.repeat


def basis_of(sweep: SweepRow, trials: Collection[StoredTrial]) -> frozenset[tuple[object, ...]]:
    """What suggestions stand on: the sweep's file, which may be changed, and the answers of these trials."""
    return answers_of(trials) | {(sweep.config_yaml,)}


def answers_of(trials: Collection[StoredTrial]) -> frozenset[tuple[object, ...]]:
    """What names the results so far: a buffer made from the same ones is as good as new."""
    ended = [trial for trial in trials if not trial.pending]
    return frozenset((t.name, t.outcome, t.value, t.drop, t.latency_ratio, *_of_each_device(t)) for t in ended)


def _of_each_device(trial: StoredTrial) -> Iterator[tuple[str, float]]:
    yield from sorted(trial.latency_ratios.items())
    yield from sorted(trial.baselines_ms.items())


def wanted_of(agents: Collection[AgentRow]) -> int:
    """How many suggestions should lie ready: one for every idle agent, one for every so many at work."""
    since = datetime.now(UTC) - timedelta(seconds=IDLE_S)
    heard = [agent for agent in agents if agent.heartbeat_at >= since and not agent.hold]
    idle = sum(agent.run is None for agent in heard)
    return min(max(1, idle, -(-len(heard) // AGENTS_EACH)), MOST_READY)
