"""Common classifiers, pruned at random: exact, trainable, exportable, reloadable. All of them in `make test-all`."""

import random
from pathlib import Path

import pytest
import torch
from support_zoo import (
    ZOO,
    dense,
    difference,
    exported_difference,
    mixes,
    muted,
    only_cut,
    random_gone,
    random_kept,
    reloaded,
    trains,
)

from agent.compress import bundle
from agent.compress.groups import remove, survey
from agent.compress.prune import prune, structure
from agent.measure.export import PARITY_LIMIT

SAMPLE = random.Random(0).sample(sorted(ZOO), 4)
RATIOS = (0.3, 0.5, 0.8)
CASES = [
    pytest.param(
        name, ratio, marks=() if name in SAMPLE and ratio == RATIOS[SAMPLE.index(name) % 3] else pytest.mark.slow
    )
    for name in ZOO
    for ratio in RATIOS
]


@pytest.mark.parametrize(("name", "ratio"), CASES)
def test_a_network_of_the_zoo_is_pruned_exactly(name: str, ratio: float, tmp_path: Path) -> None:
    """Each group keeps the channels asked for, only the head stays whole; it trains, exports and comes back exactly."""
    network, image = dense(name)
    found = survey(network, image)
    assert set(found.whole.values()) == {"it makes the network's output"}
    assert len(found.whole) == 1

    kept = random_kept(found.groups, ratio)
    pruned = prune(network, image, found.groups, kept, importance="random", seed=1)
    assert pruned.kept == kept == structure(pruned.network, found.groups)
    assert only_cut(pruned.network, network)
    assert exported_difference(pruned, image, tmp_path) <= PARITY_LIMIT

    bundle.write(tmp_path, pruned.network, pruned.kept)
    with torch.no_grad():
        assert torch.equal(reloaded(name, tmp_path, image), pruned.network.eval()(image))
    assert trains(pruned.network, image)


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_the_channels_removed_are_those_that_belong_together(name: str) -> None:
    """Without them the network computes what it computes when the layers that read them see zeros."""
    network, image = dense(name)
    groups = [group for group in survey(network, image).groups if not mixes([group], network)]
    gone = random_gone(groups, 0.4)
    smaller = dense(name)[0]
    remove(smaller, groups, gone)
    assert difference(muted(network, groups, gone), smaller, image) < 1e-4
