"""Suggestions ahead of time: a heartbeat takes what lies ready and never waits for a controller.

One thread keeps a buffer per running sweep filled: as many suggestions as there are idle agents, and a few more where
many agents work. It asks the controller's process again when results have arrived since a buffer was filled; until
there are enough new suggestions, the old ones may still be handed out. It asks for about a second's worth at a time, so
that the first ones are there soon and no sweep waits for another one's whole buffer.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion
from prunefleet.infra.controller.parameters import ParameterSpace, parse
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.sweep_config import has_models, learns, searched_here
from prunefleet.infra.hub.store.errors import HubError, Missing
from prunefleet.infra.hub.store.rows import RunRow, RunState, SweepRow, SweepState
from prunefleet.infra.hub.suggest.buffer import PORTION_S, Situation, SuggestionBuffer, basis_of, not_begun, wanted_of
from prunefleet.infra.hub.suggest.controller_process import ChildFailed, ControllerProcess
from prunefleet.infra.hub.suggest.input import prior_trials, profile_of, stored_trial
from prunefleet.objective.errors import BadInput

log = logging.getLogger(__name__)

LOOK_S = 2.0  # how often the sweeps are looked over for one that nobody poked about
LOST_S = 15.0  # a suggestion that was taken and became no run within this time was not used
ACTIVE = (SweepState.RUNNING, SweepState.PENDING)


@dataclass
class Reading:
    """Runs by id as they were last read, each with its trial; `of` is the sweep's file at that time."""

    of: str
    trials: dict[int, tuple[Mapping[str, Any], Mapping[str, Any], RunState, StoredTrial]] = field(default_factory=dict)


class ProcessSuggester:
    """Fills the buffers from one controller process. `take` and `poke` only touch memory, so they never wait."""

    def __init__(
        self,
        hub: Hub,
        profile: Callable[[SweepRow], Mapping[str, Any] | None] = lambda sweep: None,
        process: ControllerProcess | None = None,
        prior: Callable[[int], Sequence[RunRow]] = lambda sweep_id: (),
    ) -> None:
        self._hub, self._profile, self._prior = hub, profile, prior
        self.process = process or ControllerProcess()
        self._change = threading.Condition()
        self._buffers: dict[int, SuggestionBuffer] = {}
        self._read: dict[int, Reading] = {}
        self._poked: set[int] = set()
        self._stopping = False
        self._said = 0
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._work, name="suggester", daemon=True)

    # For the hub

    def take(self, sweep_id: int) -> Suggestion | Exhausted | None:
        """The suggestion that lies ready, to be used now; None where there is none yet."""
        with self._change:
            buffer = self._buffers.setdefault(sweep_id, SuggestionBuffer())
            self._poke(sweep_id)
            if not buffer.ready and not buffer.older:
                return buffer.exhausted
            suggestion = (buffer.ready or buffer.older).popleft()
            buffer.taken.append((time.monotonic(), suggestion))
            buffer.takes += 1
            return suggestion

    def poke(self, sweep_id: int) -> None:
        """A run of the sweep came, ended or was not made after all: think again."""
        with self._change:
            self._poke(sweep_id)

    def advice(self, sweep_id: int) -> Advice:
        """What the search says of a sweep; thought of soon where nobody has asked since the hub was started."""
        with self._change:
            if sweep_id not in self._buffers:
                self._poke(sweep_id)
            return self._buffers.get(sweep_id, SuggestionBuffer()).advice

    @property
    def said(self) -> int:
        """How often the advice for a sweep has changed."""
        return self._said

    def start(self) -> None:
        """Begin to think."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the controller's process; what lies ready is forgotten and can be made again."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        self.process.stop()
        self._thread.join()
        self.process.stop()

    # The thread

    def _poke(self, sweep_id: int) -> None:
        self._poked.add(sweep_id)
        self._change.notify_all()

    def _work(self) -> None:
        while (poked := self._next()) is not None:
            for sweep_id in poked:
                try:
                    self._think(sweep_id)
                except ChildFailed as error:
                    self._retry(sweep_id, error)
                except (HubError, OSError) as error:
                    log.warning("suggestions for sweep %s: %s", sweep_id, error)
                except Exception:  # one sweep must not end the thread that serves all
                    log.exception("suggestions for sweep %s", sweep_id)

    def _next(self) -> list[int] | None:
        """The sweeps to think about, None at the end; looks over all active sweeps where nobody pokes."""
        with self._change:
            self._change.wait_for(lambda: self._poked or self._stopping, LOOK_S)
            if self._stopping:
                return None
            poked, self._poked = sorted(self._poked), set()
        return poked or [s.id for s in self._active() if s.id not in self._buffers and searched_here(s.config)]

    def _active(self) -> list[SweepRow]:
        try:
            return [sweep for state in ACTIVE for sweep in self._hub.records.sweeps_in(state)]
        except HubError as error:
            log.warning("suggestions: %s", error)
            return []

    def _retry(self, sweep_id: int, error: ChildFailed) -> None:
        if not self._stopping:
            log.warning("suggestions for sweep %s: %s; the controller is started again", sweep_id, error)
            self.poke(sweep_id)

    def _think(self, sweep_id: int) -> None:
        found = self._look(sweep_id)
        if found is None:
            return
        with self._change:
            buffer = self._buffers.setdefault(sweep_id, SuggestionBuffer())
            ahead = self._ahead(buffer, found)
            missing, takes = found.wanted - len(ahead), buffer.takes
            waiting = [suggestion for _, suggestion in buffer.taken] + ahead
            if missing <= 0:
                buffer.filled_for = found.wanted
        if missing <= 0 and found.advised and buffer.advised != found.basis:
            self._ask(found, waiting, 0)
        if missing > 0:
            count = min(missing, max(1, int(PORTION_S / max(buffer.each_s, 1e-3))))
            began = time.monotonic()
            answer = self._ask(found, waiting, count)
            buffer.each_s = (time.monotonic() - began) / count
            self._fill(buffer, found, takes, answer, ahead)
            if missing > count:
                self.poke(sweep_id)

    def _look(self, sweep_id: int) -> Situation | None:
        """The sweep as it is, or None where nothing is to be done for it."""
        try:
            sweep = self._hub.records.sweep_by_id(sweep_id)
        except Missing:
            self._forget(sweep_id)
            return None
        active, advised = sweep.state in ACTIVE, has_models(sweep.config)
        if not searched_here(sweep.config) or not (active or advised):
            return None
        self.process.start()
        wanted = wanted_of(self._hub.records.sweep_agents(sweep_id)) if active else 0
        with self._change:
            buffer = self._buffers.get(sweep_id)
            if buffer is not None and not learns(sweep.config) and buffer.stocked(basis_of(sweep, ()), wanted):
                return None
        try:
            space = parse(sweep.config.get("parameters", {}))
        except BadInput as error:
            self._complain(sweep_id, str(error))
            return None
        trials = [*prior_trials(self._prior(sweep_id), sweep, space), *self._trials(sweep, space)]
        basis = basis_of(sweep, trials if learns(sweep.config) else ())
        return Situation(sweep, space, trials, basis, wanted, advised)

    def _trials(self, sweep: SweepRow, space: ParameterSpace) -> list[StoredTrial]:
        """The sweep's runs as trials; read anew only for those that came or changed since the last look."""
        known = self._read.get(sweep.id)
        known = known if known is not None and known.of == sweep.config_yaml else Reading(sweep.config_yaml)
        reading = Reading(sweep.config_yaml)
        for run in self._hub.listing.sweep_runs(sweep.id):
            seen = known.trials.get(run.id)
            fresh = seen is None or (run.config, run.summary, run.state) != seen[:3]
            trial = stored_trial(run, sweep, space) if seen is None or fresh else seen[3]
            reading.trials[run.id] = (run.config, run.summary, run.state, trial)
        self._read[sweep.id] = reading
        return [trial for *_, trial in reading.trials.values()]

    def _forget(self, sweep_id: int) -> None:
        with self._change:
            self._buffers.pop(sweep_id, None)
        self._read.pop(sweep_id, None)

    def _ahead(self, buffer: SuggestionBuffer, found: Situation) -> list[Suggestion]:
        """What lies ready and is as good as new; forgets what has become a run, or was never used."""
        if buffer.basis != found.basis:
            buffer.older.extendleft(reversed(buffer.ready))
            buffer.ready.clear()
            buffer.basis = None
        now = time.monotonic()
        if buffer.taken or buffer.older:
            waiting = not_begun(found)
            buffer.older = deque(filter(waiting, buffer.older))
            buffer.taken = [(when, each) for when, each in buffer.taken if waiting(each) and now - when < LOST_S]
        return list(buffer.ready)

    def _ask(self, found: Situation, waiting: Sequence[Suggestion], count: int) -> dict[str, Any]:
        trials = [*found.trials, *(StoredTrial(f"ahead-{i}", s.params, "pending") for i, s in enumerate(waiting))]
        profile, problem = self._read_profile(found.sweep)
        request = {
            "id": next(self._numbers),
            "sweep": {"name": found.sweep.name, "config": found.sweep.config, "profile": profile},
            "trials": [trial.to_json() for trial in trials],
            "count": count,
        }
        answer = self.process.ask(request)
        self._complain(found.sweep.id, answer.get("error") or answer.get("note") or problem)
        with self._change:
            buffer = self._buffers.setdefault(found.sweep.id, SuggestionBuffer())
            buffer.advised = found.basis
            self._say(buffer, **(answer.get("recommended") or {}))
        return answer

    def _read_profile(self, sweep: SweepRow) -> tuple[Mapping[str, Any] | None, str | None]:
        """The sweep's profile; without one that can be read the search goes on, knowing less."""
        try:
            return self._profile(sweep), None
        except (HubError, BadInput) as error:
            return None, f"{error}; the search goes on without a profile"

    def _fill(
        self,
        buffer: SuggestionBuffer,
        found: Situation,
        takes: int,
        answer: Mapping[str, Any],
        ahead: Sequence[Suggestion],
    ) -> None:
        """Put the answer on the buffer, in place of what is older than the answers it knows."""
        if "error" in answer:
            return
        fresh = [Suggestion(**suggestion) for suggestion in answer["suggestions"]]
        with self._change:
            moved = buffer.takes - takes
            gone = {found.space.point(each.params) for _, each in buffer.taken}
            kept = list(ahead)[moved:] if moved <= len(ahead) else []
            new = [each for each in fresh if not moved or found.space.point(each.params) not in gone]
            buffer.ready = deque([*kept, *new])
            buffer.older = self._still_of_use(buffer, found, exhausted=bool(answer["exhausted"]))
            # What was taken meanwhile is unknown to these: hand them out if asked, but think again.
            buffer.basis = found.basis if not moved or ahead else None
            buffer.filled_for = found.wanted if len(buffer.ready) >= found.wanted else 0
            # A suggestion on its way to become a run may still come back unused, and then something is left to try.
            ended = answer["exhausted"] and not buffer.ready and not buffer.taken
            buffer.exhausted = Exhausted(answer["exhausted"]) if ended else None
            if buffer.basis is None:
                self._poke(found.sweep.id)

    def _still_of_use(self, buffer: SuggestionBuffer, found: Situation, *, exhausted: bool) -> deque[Suggestion]:
        """What was made from fewer answers and may fill the gap until there is enough that is newer."""
        newer = {found.space.point(each.params) for each in buffer.ready}
        useful = [each for each in buffer.older if found.space.point(each.params) not in newer]
        return deque([] if exhausted else useful[: max(0, found.wanted - len(buffer.ready))])

    def _complain(self, sweep_id: int, problem: str | None) -> None:
        with self._change:
            buffer = self._buffers.setdefault(sweep_id, SuggestionBuffer())
            told = buffer.advice.problem
            self._say(buffer, problem=problem)
        if problem is not None and problem != told:
            log.warning("sweep %s: %s", sweep_id, problem)

    def _say(self, buffer: SuggestionBuffer, **more: Any) -> None:
        advice = replace(buffer.advice, **more)
        self._said += advice != buffer.advice
        buffer.advice = advice


@contextmanager
def start_suggester(hub: Hub) -> Iterator[ProcessSuggester]:
    """The suggester of a hub, ended with the context."""
    suggester = ProcessSuggester(hub, lambda sweep: profile_of(hub, sweep), prior=hub.records.prior_runs)
    suggester.start()
    try:
        yield suggester
    finally:
        suggester.stop()
