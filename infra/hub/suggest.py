"""Stand-in until the controller's process is there: thinks at once, in the hub's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.controller.base import Exhausted, StoredTrial, Suggestion, SweepSpec
from infra.controller.random import RandomSearch
from infra.hub.service import Hub, Suggester


class _AtOnce:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def take(self, sweep_id: int) -> Suggestion | Exhausted | None:
        sweep = self._hub.sweep_by_id(sweep_id)
        spec = SweepSpec.from_config(sweep.name, sweep.config)
        runs = self._hub.sweep_runs(sweep_id)
        trials = [StoredTrial(name=run.name, params={}, state=run.state.value) for run in runs]
        return RandomSearch().suggest(spec, trials, spec.seed(len(trials)))

    def poke(self, sweep_id: int) -> None:
        """Nothing."""


@contextmanager
def start_suggester(hub: Hub) -> Iterator[Suggester]:
    """The suggester of a hub, ended with the context."""
    yield _AtOnce(hub)
