"""Common classifiers, pruned at random: exact, trainable, exportable, reloadable. All of them in `make test-all`."""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.groups import Survey, remove, survey
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.measure.export import PARITY_LIMIT
from prunefleet.agent.tasks.networks.zoo import classifier

from support.networks import channels_of
from support.zoo import (
    ZOO,
    Reader,
    answers,
    dense,
    difference,
    exported_difference,
    mixes,
    muted,
    only_cut,
    prunable_share,
    random_gone,
    random_kept,
    trains,
)

RATIOS = (0.3, 0.5, 0.8)
STAYS = {
    "torchvision/shufflenet_v2_x1_0": "all its channels depend on each other",
    "timm/swin_tiny_patch4_window7_224": "its one channel meets many channels of others",
    "timm/efficientformer_l1": "its channels are split into unequal parts",
}
"""How the reasons begin why layers stay whole that do not make the output."""
SHARES: dict[str, float] = {}
"""The least share of the multiply-accumulates that can go, where it is not nearly all."""
SAMPLE = {"torchvision/squeezenet1_1": 0.8}
"""What `make test` has of it, at one ratio."""
LAST = "it makes the network's output"


def _slow(name: str, *case: float, quick: bool) -> object:
    return pytest.param(name, *case, marks=() if quick else pytest.mark.slow)


CASES = [_slow(name, ratio, quick=SAMPLE.get(name) == ratio) for name in ZOO for ratio in RATIOS]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """One other process for all."""
    process = Reader()
    yield process
    process.close()


@cache
def surveyed(name: str) -> Survey:
    """What is found of a network of the zoo: the proof takes longest."""
    return survey(*dense(name))


@pytest.mark.parametrize(("name", "ratio"), CASES)
def test_a_network_of_the_zoo_is_pruned_exactly(name: str, ratio: float, reader: Reader, tmp_path: Path) -> None:
    """Each group keeps the channels asked for; the network trains, exports and comes back exactly."""
    network, image = dense(name)
    groups = surveyed(name).groups
    kept = random_kept(groups, ratio)
    pruned = prune(network, image, groups, kept, importance="random", seed=1)
    assert pruned.kept == kept == channels_of(pruned.network, groups)
    assert only_cut(pruned.network, network)
    assert exported_difference(pruned, image, tmp_path) <= PARITY_LIMIT

    bundle.write(tmp_path, pruned.network, pruned.kept)
    expected, got = answers(pruned.network.eval(), image), reader.read(name, tmp_path, image)
    assert expected.keys() == got.keys() and all(torch.equal(got[key], expected[key]) for key in got)
    assert trains(pruned.network, image)


NAMES = [_slow(name, quick=name in SAMPLE) for name in ZOO]


@pytest.mark.parametrize("name", NAMES)
def test_the_channels_removed_are_those_that_belong_together(name: str) -> None:
    """Without them the network computes what it computes when the layers that read them see zeros."""
    network, image = dense(name)
    groups = [group for group in surveyed(name).groups if not mixes([group], network)]
    gone, smaller = random_gone(groups, 0.4), copy.deepcopy(network)
    remove(smaller, groups, gone)
    assert difference(muted(network, groups, gone), smaller, image) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_nearly_all_of_a_network_of_the_zoo_can_be_pruned(name: str) -> None:
    """Every group is proven, what stays whole beside the output is what docs/results/zoo.md names, and little."""
    found = surveyed(name)
    assert {group.proof for group in found.groups} <= {"silence", "influence"}
    assert all(reason.startswith(STAYS.get(name, LAST)) for reason in found.whole.values() if reason != LAST)
    assert prunable_share(*dense(name), found.groups) >= SHARES.get(name, 0.95)


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
@pytest.mark.parametrize("name", ["timm/deit_tiny_patch16_224", "torchvision/vit_b_16"])
def test_heads_and_perceptrons_of_a_vision_transformer_are_groups(name: str) -> None:
    """Each of its twelve blocks loses whole heads (query, key, value together) and channels of its perceptron."""
    network, image = dense(name)
    found, width = surveyed(name), 64
    heads = [group for group in found.groups if group.multiple % width == 0]
    assert len(heads) == 12 and len(found.groups) == 25
    kept = {group.name: group.multiple for group in heads}
    pruned = prune(network, image, found.groups, kept).network
    assert {module.num_heads if "timm" in name else module.heads for module in _attentions(pruned)} == {1}


def _attentions(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if type(module).__name__ == "Attention"]
