"""Bayesian search: over pruning ratios where a profile and a goal are known, over any parameters otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.engines import generic
from prunefleet.infra.controller.pruning import engine
from prunefleet.infra.controller.threads import one_thread


class BayesSearch:
    """Models the answers so far with Gaussian processes and tries where improvement is most to be expected."""

    def suggest(self, sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
        """See `Controller.suggest`; exhausted when a finite grid is used up."""
        if not sweep.space.free:
            return _only(sweep, trials)
        with one_thread():
            if sweep.profile is not None and sweep.goal is not None and "ratio" in sweep.parameters:
                return engine.suggest(sweep, sweep.profile, sweep.goal, trials, seed)
            return generic.suggest(sweep, trials, seed)


def _only(sweep: SweepSpec, trials: Sequence[StoredTrial]) -> Suggestion | Exhausted:
    """A sweep of constants has one candidate."""
    if trials:
        return Exhausted("all parameters are constant, and the one candidate has been tried")
    return Suggestion({}, sweep.space.config({}), {"kind": "explore", "note": "all parameters are constant"})
