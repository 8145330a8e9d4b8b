"""Parts and folds of a data set: whole, alike, and the same everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.agent.tasks.data.divide import SHARES, divided, folded
from prunefleet.agent.tasks.task import SPLITS
from prunefleet.objective.errors import BadInput

strata = st.lists(st.integers(0, 3), min_size=1, max_size=4).flatmap(
    lambda kinds: st.lists(st.sampled_from(kinds), min_size=0, max_size=60).map(lambda more: [*kinds, *more] * 5)
)


@given(strata, st.integers(0, 5))
def test_parts_share_every_stratum(kinds: list[int], seed: int) -> None:
    """Every example is in one part, every part has every stratum, in its share, each time alike."""
    parts = divided(kinds, SHARES, seed=seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(kinds)))
    for part, share in SHARES.items():
        for kind in set(kinds):
            count, total = np.count_nonzero(np.array(kinds)[parts[part]] == kind), kinds.count(kind)
            assert count >= 1 and abs(count - share * total) <= 1
    assert all((parts[part] == again).all() for part, again in divided(kinds, SHARES, seed=seed).items())


@given(strata, st.integers(4, 9))
def test_folds_take_turns(kinds: list[int], folds: int) -> None:
    """Over all folds each example is tested, validates and is held out once, and folds differ by one of a stratum."""
    if len(kinds) < folds:
        return
    parts = [folded(kinds, fold, folds) for fold in range(folds)]
    for part in SPLITS:
        assert sorted(np.concatenate([each[part] for each in parts]).tolist()) == list(range(len(kinds)))
    for each in parts:
        assert sorted(np.concatenate(list(each.values())).tolist()) == list(range(len(kinds)))
    for kind in set(kinds):
        counts = [np.count_nonzero(np.array(kinds)[each["test"]] == kind) for each in parts]
        assert max(counts) - min(counts) <= 1
    sizes = [len(each["test"]) for each in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("fold", "folds", "words"), [(8, 8, "fold: got 8"), (0, 3, "folds: got 3"), (0, 99, "folds")])
def test_a_fold_that_is_none_is_refused(fold: int, folds: int, words: str) -> None:
    """Folds are counted from 0, four at least, and not more than there are examples."""
    with pytest.raises(BadInput, match=words):
        folded([0, 1] * 20, fold, folds)
