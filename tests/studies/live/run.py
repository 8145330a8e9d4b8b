"""A live comparison under way: trials begin in turn, each is a row as soon as it is known, a later run goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import NamedTuple

from prunefleet.agent.measure import lock
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile

from studies.live.study import HEAD, METHODS, PROFILE, TRIAL, Proposal, Row, Search, Setting, Turn, search_of, turns

OWN = ("row", "method", "seed", "place", "reused", "asked_s", "recommended")
"""What of a row belongs to its search, and not to the trial, which another search may ask for as well."""
Trial = Callable[[str, Mapping[str, int], int, float], Row]
"""From network, kept channels, seed of fine-tuning and seconds of a sitting to what is known of a candidate then."""


class Begun(NamedTuple):
    """A trial that was asked for, and how long its search took to say so."""

    turn: Turn
    proposal: Proposal
    asked_s: float


class Comparison:
    """All trials that are not in the table yet.

    Each search is asked when its trial before has ended, so what it asks for does not depend on who is quicker; as
    many as `processes` run at the same time, of different methods. What is in the table is told again in its order, so
    that a search goes on as if it had never ended.
    """

    def __init__(self, setting: Setting, trial: Trial, pool: Executor, processes: int) -> None:
        self._setting, self._trial, self._pool, self._most = setting, trial, pool, min(processes, len(METHODS))
        self._head = setting.table.rows(HEAD)[0]
        self._profile = Profile.from_json(setting.table.rows(PROFILE)[0]["profile"])
        self._searches: dict[tuple[str, int], Search] = {}
        self._known: dict[tuple[object, ...], Row] = {}
        self._running: dict[Future[Row], list[Begun]] = {}

    def rows(self) -> Iterator[Row]:
        """New rows, as they are known."""
        told = {Turn(row["seed"], row["place"], row["method"]): row for row in self._setting.table.rows(TRIAL)}
        for turn in turns(self._setting):
            if turn in told:
                self._replay(turn, told[turn])
                continue
            while len(self._running) >= self._most or self._is_waited_for(turn):
                yield from self._ended()
            yield from self._begin(turn)
        while self._running:
            yield from self._ended()

    def _search(self, turn: Turn) -> Search:
        if turn.search not in self._searches:
            self._searches[turn.search] = search_of(*turn.search, self._head, self._profile)
        return self._searches[turn.search]

    def _is_waited_for(self, turn: Turn) -> bool:
        return any(each.turn.search == turn.search for waiting in self._running.values() for each in waiting)

    def _replay(self, turn: Turn, row: Row) -> None:
        proposal = self._search(turn).ask()
        if dict(proposal.kept) != row["kept"] or proposal.tuning_seed != row["tuning_seed"]:
            remedy = f"remove {self._setting.table.path.name}, its searches went another way than today's would"
            raise BadInput(f"trial {turn.place} of {turn.method} with seed {turn.seed}", row["kept"], remedy)
        self._search(turn).tell(row)
        self._remember(proposal, row)

    def _remember(self, proposal: Proposal, row: Row) -> None:
        self._known.setdefault(proposal.key, {name: each for name, each in row.items() if name not in OWN})

    def _begin(self, turn: Turn) -> Iterator[Row]:
        """Begin a trial; the same one that was begun before, by whichever search, ends with that, or at once."""
        with lock.batch():  # to suggest is work, which must not disturb a measurement
            began = time.perf_counter()
            proposal = self._search(turn).ask()
            begun = Begun(turn, proposal, round(time.perf_counter() - began, 2))
        if proposal.key in self._known:
            yield self._keep(begun, self._known[proposal.key], reused=True)
            return
        for waiting in self._running.values():
            if waiting[0].proposal.key == proposal.key:
                waiting.append(begun)
                return
        asked = (self._setting.network, proposal.kept, proposal.tuning_seed, self._setting.sitting_s)
        self._running[self._pool.submit(self._trial, *asked)] = [begun]

    def _ended(self) -> Iterator[Row]:
        """The rows of the trials that end next."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in [each for each in self._running if each in done]:
            found = future.result()
            first, *others = self._running.pop(future)
            yield self._keep(first, found, reused=False)
            for other in others:
                yield self._keep(other, found, reused=True)

    def _keep(self, begun: Begun, found: Row, reused: bool) -> Row:
        turn, proposal, search = begun.turn, begun.proposal, self._search(begun.turn)
        row = {
            "row": TRIAL,
            "method": turn.method,
            "seed": turn.seed,
            "place": turn.place,
            **found,
            "kept": dict(proposal.kept),
            "tuning_seed": proposal.tuning_seed,
            "reused": reused,
            "asked_s": begun.asked_s,
        }
        search.tell(row)
        with lock.batch():
            row["recommended"] = search.recommended()
        self._setting.table.append(row)
        self._remember(proposal, row)
        return row
