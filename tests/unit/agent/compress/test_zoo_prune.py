"""Common classifiers, pruned at random: exact, trainable, exportable, reloadable. All of them in `make test-all`."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.groups import find_groups, remove, survey
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.measure.export import PARITY_LIMIT
from prunefleet.agent.tasks.networks.zoo import classifier

from support.networks import channels_of
from support.zoo import (
    ZOO,
    Reader,
    dense,
    difference,
    exported_difference,
    mixes,
    muted,
    only_cut,
    random_gone,
    random_kept,
    trains,
)

RATIOS = (0.3, 0.5, 0.8)
SAMPLE = dict(zip(random.Random(527).sample(sorted(ZOO), 3)[2:], RATIOS[2:], strict=True))
"""What `make test` has of it, at one ratio: the quickest of a seeded sample of several kinds."""


def _slow(name: str, *case: float, quick: bool) -> object:
    return pytest.param(name, *case, marks=() if quick else pytest.mark.slow)


CASES = [_slow(name, ratio, quick=SAMPLE.get(name) == ratio) for name in ZOO for ratio in RATIOS]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """One other process for all."""
    process = Reader()
    yield process
    process.close()


@pytest.mark.parametrize(("name", "ratio"), CASES)
def test_a_network_of_the_zoo_is_pruned_exactly(name: str, ratio: float, reader: Reader, tmp_path: Path) -> None:
    """Each group keeps the channels asked for, only the head stays whole; it trains, exports and comes back exactly."""
    network, image = dense(name)
    found = survey(network, image)
    assert list(found.whole.values()) == ["it makes the network's output"]

    kept = random_kept(found.groups, ratio)
    pruned = prune(network, image, found.groups, kept, importance="random", seed=1)
    assert pruned.kept == kept == channels_of(pruned.network, found.groups)
    assert only_cut(pruned.network, network)
    assert exported_difference(pruned, image, tmp_path) <= PARITY_LIMIT

    bundle.write(tmp_path, pruned.network, pruned.kept)
    with torch.no_grad():
        expected = pruned.network.eval()(image)
    assert torch.equal(reader.read(name, tmp_path, image), expected)
    assert trains(pruned.network, image)


@pytest.mark.parametrize("name", [_slow(name, quick=name == next(iter(SAMPLE))) for name in ZOO])
def test_the_channels_removed_are_those_that_belong_together(name: str) -> None:
    """Without them the network computes what it computes when the layers that read them see zeros."""
    network, image = dense(name)
    groups = [group for group in find_groups(network, image) if not mixes([group], network)]
    gone, smaller = random_gone(groups, 0.4), copy.deepcopy(network)
    remove(smaller, groups, gone)
    assert difference(muted(network, groups, gone), smaller, image) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("inception_v3", 299)])
def test_auxiliary_heads_are_pruned_with_the_rest(name: str, side: int) -> None:
    """In training the network gives all its outputs after pruning, in evaluation the one."""
    network, image = classifier(f"torchvision/{name}", classes=10, aux_logits=True), torch.zeros(1, 3, side, side)
    found = survey(network, image)
    assert any("aux" in group.name.lower() for group in found.groups)
    kept = random_kept(found.groups, 0.5)
    pruned = prune(network, image, found.groups, kept).network
    outputs = pruned.train()(torch.cat([image, image]))
    assert len(outputs) > 1 and {tuple(each.shape) for each in outputs} == {(2, 10)}
    assert pruned.eval()(image).shape == (1, 10)


@pytest.mark.slow
def test_a_vision_transformer_is_pruned_where_it_can_be(tmp_path: Path) -> None:
    """Inside its perceptrons; its attention is named, with the layer that breaks."""
    network, image = classifier("timm/vit_tiny_patch16_224", classes=10), torch.zeros(1, 3, 224, 224)
    found = survey(network, image)
    assert {group.name for group in found.groups} >= {f"blocks_{block}_mlp_fc1" for block in range(12)}
    assert all("breaks blocks.0" in found.whole[f"blocks.{block}.attn.qkv"] for block in range(1))
    kept = random_kept(found.groups, 0.5)
    pruned = prune(network, image, found.groups, kept)
    assert pruned.kept == kept
    assert exported_difference(pruned, image + 0.1, tmp_path) <= PARITY_LIMIT
