"""Which example belongs to which part, where a data set does not say: seeded, and stratified to make parts alike."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

Places = NDArray[np.int64]
SEED = 20170825
SHARES = {"validation": 0.1, "holdout": 0.1, "test": 0.15}
"""Of a data set that comes in one piece; the rest is for training."""


def divided(
    strata: Sequence[int], shares: Mapping[str, float], rest: str = "train", seed: int = SEED
) -> dict[str, Places]:
    """Places of the examples of each part, in an order that is random but fixed.

    `strata` says of each example what it is like (its class, say): each part gets its share of every stratum, at least
    one example, and `rest` what is left. Raises `BadInput` for a stratum with fewer examples than parts.
    """
    random, kinds = np.random.default_rng(seed), np.asarray(strata)
    parts: dict[str, list[int]] = {name: [] for name in (rest, *shares)}
    for kind in np.unique(kinds):
        own = random.permutation(np.flatnonzero(kinds == kind))
        total, left = len(own), len(shares)
        if total < len(parts):
            raise BadInput("data", f"{total} examples of a kind", f"give at least {len(parts)}: one for each part")
        for name, share in shares.items():
            count = min(max(1, round(share * total)), len(own) - left)
            parts[name] += own[:count].tolist()
            own, left = own[count:], left - 1
        parts[rest] += own.tolist()
    return {name: random.permutation(np.array(places, np.int64)) for name, places in parts.items()}


def folded(strata: Sequence[int], fold: int, folds: int, seed: int = SEED) -> dict[str, Places]:
    """Places of the examples of each part where the parts take turns: `fold` is tested, the next two validate.

    Over all folds, each example is in test once, in validation once, in holdout once. Raises `BadInput` for fewer than
    four folds, a fold beyond them, or fewer examples than folds.
    """
    if checks.whole("options.folds", folds, low=4) > len(strata):
        raise BadInput("options.folds", folds, f"give at most the number of examples, {len(strata)}")
    if checks.whole("options.fold", fold) >= folds:
        raise BadInput("options.fold", fold, f"count folds from 0 to {folds - 1}")
    of = _folds(np.asarray(strata), folds, seed)
    turns = {"test": fold, "validation": (fold + 1) % folds, "holdout": (fold + 2) % folds}
    order = np.random.default_rng(seed).permutation(len(of))
    parts = {name: order[of[order] == turn] for name, turn in turns.items()}
    return {"train": order[~np.isin(of[order], list(turns.values()))], **parts}


def _folds(strata: "NDArray[np.int64]", folds: int, seed: int) -> Places:
    """The fold of each example: every stratum is dealt out in turn, going on where the one before ended."""
    random, of, dealt = np.random.default_rng(seed), np.empty(len(strata), np.int64), 0
    for kind in np.unique(strata):
        own = random.permutation(np.flatnonzero(strata == kind))
        of[own] = (dealt + np.arange(len(own))) % folds
        dealt += len(own)
    return of
