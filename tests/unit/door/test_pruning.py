"""`groups`, `prune` and `load_bundle`: pruning without a sweep."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunefleet import BadInput, Groups, groups, load_bundle, prune
from prunefleet.agent.compress import bundle

from support.networks import Residual

IMAGE = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def network_of(*layers: nn.Module, width: int) -> nn.Module:
    """The layers, then one output for each of three classes."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


def residual() -> nn.Module:
    return Residual(16, (8, 24))


def depthwise() -> nn.Module:
    dense, each = nn.Conv2d(1, 12, 3), nn.Conv2d(12, 12, 3, groups=12)
    return network_of(dense, nn.BatchNorm2d(12), nn.ReLU(), each, nn.ReLU(), nn.Conv2d(12, 16, 1), width=16)


def tied() -> nn.Module:
    return network_of(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 16, 1), width=16)


MAKERS = {"residual": residual, "depthwise": depthwise, "tied": tied}
NETWORKS = {name: make() for name, make in MAKERS.items()}
FOUND = {name: groups(network, IMAGE) for name, network in NETWORKS.items()}


def test_the_groups_of_a_residual_network() -> None:
    """All that writes to the stream is one group, each inner layer one of its own; the output layer stays whole."""
    found = groups(residual(), IMAGE)
    assert isinstance(found, Groups) and len(found) == 3
    assert [(group.name, group.width, group.multiple) for group in found] == [
        ("stem", 16, 1),
        ("down_0", 8, 1),
        ("down_1", 24, 1),
    ]
    assert next(iter(found)).members == ("stem", "up.0", "up.1")
    assert found.whole == {"head": "it makes the network's output"}


def test_channels_that_are_tied_go_in_steps() -> None:
    """Before and in a convolution of four groups channels are kept in fours; a depthwise one ties none."""
    assert [(group.name, group.multiple) for group in FOUND["tied"]] == [("0", 4), ("2", 4), ("3", 1)]
    assert [(group.members, group.multiple) for group in FOUND["depthwise"]] == [(("0", "3"), 1), (("5",), 1)]


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12)
@given(data=st.data())
def test_any_channels_can_be_kept(name: str, data: st.DataObject) -> None:
    """Whatever is kept, each layer has as many channels as asked, and the output keeps its shape."""
    network, found = NETWORKS[name], FOUND[name]
    kept = {}
    for group in found:
        if data.draw(st.booleans(), label=f"prune {group.name}"):
            kept[group.name] = group.multiple * data.draw(st.integers(1, group.width // group.multiple))
    pruned = prune(network, IMAGE, kept, data.draw(st.sampled_from(["l1", "l2", "fpgm", "random"])))
    assert pruned.kept == {group.name: kept.get(group.name, group.width) for group in found}
    for group in found:
        for member in group.members:
            layer: Any = pruned.network.get_submodule(member)
            assert layer.out_channels == layer.weight.shape[0] == pruned.kept[group.name]
    assert pruned.network(IMAGE).shape == network(IMAGE).shape
    assert pruned.params == sum(each.numel() for each in pruned.network.parameters())


def state(network: nn.Module) -> list[object]:
    """All that pruning might change of a network, objects by their identity."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return [
        [(name, id(tensor), tensor.tolist(), tensor.requires_grad, tensor.grad) for name, tensor in tensors],
        [(name, id(module), module.training) for name, module in network.named_modules()],
        [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in network.modules()],
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_given_is_not_changed(name: str, training: bool) -> None:
    """It keeps its objects, numbers and mode; the pruned copy is in the same mode and shares no tensor with it."""
    network = MAKERS[name]().train(training)
    next(network.parameters()).requires_grad_(False)
    before = state(network)
    found = groups(network, IMAGE)
    pruned = prune(network, IMAGE, {group.name: group.multiple for group in found})
    assert state(network) == before
    assert pruned.network.training is training
    shared = {each.data_ptr() for each in network.parameters()} & {
        each.data_ptr() for each in pruned.network.parameters()
    }
    assert not shared and not next(pruned.network.parameters()).requires_grad


def test_nothing_to_prune_gives_an_equal_copy() -> None:
    """Without a group named, the copy computes what the network does."""
    network = residual().eval()
    pruned = prune(network, IMAGE, {})
    assert pruned.network is not network and torch.equal(pruned.network(IMAGE), network(IMAGE))
    assert pruned.params == sum(each.numel() for each in network.parameters())


def test_the_least_important_channels_go() -> None:
    """By `filter`, those whose own filters are smallest, however large the weights behind them."""
    network: Any = tied()
    layer = network[-4]
    with torch.no_grad():
        layer.weight.copy_(torch.arange(16.0).flip(0)[:, None, None, None].expand_as(layer.weight))
        network[-1].weight.copy_(torch.arange(16.0).expand(3, 16))
    left: dict[str, Any] = {
        each: prune(network, IMAGE, {"3": 4}, ranking=each).network for each in ("filter", "channel")
    }
    assert left["filter"][-4].weight[:, 0, 0, 0].tolist() == [15, 14, 13, 12]
    assert left["channel"][-4].weight[:, 0, 0, 0].tolist() == [3, 2, 1, 0]


def test_the_seed_draws_the_random_channels() -> None:
    """One seed removes the same channels each time, another one others."""
    first, again, other = (prune(residual(), IMAGE, {"down_1": 6}, "random", seed=seed).network for seed in (0, 0, 1))
    assert torch.equal(first(IMAGE), again(IMAGE)) and not torch.equal(first(IMAGE), other(IMAGE))


def test_macs_are_of_one_input() -> None:
    """A batch of several inputs gives the counts of one; a convolution and a linear layer are counted by hand."""
    network = network_of(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 1), width=16)
    one, three = (prune(network, IMAGE.expand(n, -1, -1, -1), {"0": 4}) for n in (1, 3))
    assert one.macs == three.macs == 100 * (9 * 4 + 4 * 16) + 16 * 3


def test_counts_of_numpy_are_counts() -> None:
    """A whole number of numpy's is one; what comes back is Python's."""
    kept: Any = {"stem": np.int64(6)}
    found = prune(residual(), IMAGE, kept).kept
    assert found["stem"] == 6 and type(found["stem"]) is int and json.dumps(found)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"kept": {"stm": 8}}, "kept.stm: got 8; did you mean stem?"),
        ({"kept": {"xyzzy": 8}}, "kept.xyzzy: got 8; name a group of the network: stem, down_0, down_1"),
        ({"kept": {"stem": 0}}, "kept.stem: got 0; keep 1 to 16 channels"),
        ({"kept": {"stem": -1}}, "kept.stem: got -1; keep 1 to 16 channels"),
        ({"kept": {"stem": 17}}, "kept.stem: got 17; keep 1 to 16 channels"),
        ({"kept": {"stem": 0.5}}, "kept.stem: got 0.5; give a whole number of channels, at least 1"),
        ({"kept": {"stem": 8.0}}, "kept.stem: got 8.0; give a whole number of channels, at least 1"),
        ({"kept": {"stem": True}}, "kept.stem: got True; give a whole number of channels, at least 1"),
        ({"kept": ["stem"]}, "kept: got ['stem']; give a mapping from names to values"),
        (
            {"importance": "taylor"},
            "importance: got 'taylor'; choose one of l2, l1, fpgm, bn_scale, random: it needs gradients, "
            "and there is no training data here",
        ),
        ({"importance": "l3"}, "importance: got 'l3'; choose one of l2, l1, fpgm, bn_scale, random"),
        ({"ranking": "layer"}, "ranking: got 'layer'; choose one of group, filter, channel"),
        ({"seed": -1}, "seed: got -1; give a whole number of at least 0"),
        ({"seed": 2**63}, f"seed: got {2**63}; give a whole number below 2^63"),
    ],
)
def test_bad_arguments_are_told_in_a_line(given: dict[str, Any], line: str) -> None:
    """The line names the argument, the value got and what would be right."""
    with pytest.raises(BadInput) as caught:
        prune(residual(), IMAGE, **({"kept": {}} | given))
    assert str(caught.value) == line


def test_what_is_no_network_and_no_folder_is_told() -> None:
    """A network by its name and a folder by its number are refused like any other bad input."""
    with pytest.raises(BadInput, match=r"^network: got 'str'; give a torch\.nn\.Module$"):
        groups("resnet18", IMAGE)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"^folder: got 3; give the path of a bundle's folder$"):
        load_bundle(3, residual(), IMAGE)  # type: ignore[arg-type]


def test_a_count_off_the_step_is_told() -> None:
    """Tied channels cannot be parted: the line says in which steps they are kept."""
    with pytest.raises(BadInput, match=r"^kept\.0: got 6; keep 1 to 8 channels in multiples of 4$"):
        prune(tied(), IMAGE, {"0": 6})


@pytest.mark.parametrize(
    ("example_input", "line"),
    [
        (
            IMAGE[0],
            r"got \(1, 12, 12\); give one input with a batch dimension, \[1, \.\.\.\]: example_input\.unsqueeze",
        ),
        (IMAGE[0, 0, 0], r"got \(12,\); give one input with a batch dimension"),
        (IMAGE[:0], r"got \(0, 1, 12, 12\); give a batch of at least one input"),
        ([[1.0]], r"got 'list'; give a tensor"),
    ],
)
def test_an_input_that_is_no_batch_is_told(example_input: Any, line: str) -> None:
    """All three functions refuse it, also where torch would run a convolution without a batch."""
    for call in (
        lambda: groups(residual(), example_input),
        lambda: prune(residual(), example_input, {}),
        lambda: load_bundle(".", residual(), example_input),
    ):
        with pytest.raises(BadInput, match=f"^example_input: {line}"):
            call()


def test_an_input_that_does_not_fit_names_the_layer() -> None:
    """A wrong number of channels is told with the layer that refuses it."""
    with pytest.raises(BadInput, match=r"^network: got 'stem'; make it run on an input of shape \(1, 3, 12, 12\)"):
        groups(residual(), torch.zeros(1, 3, 12, 12))


def test_a_bundle_comes_back_as_the_network_it_was(tmp_path: Path) -> None:
    """Written by a trial and read by its path or its text, it computes the same; the dense network is not changed."""
    pruned = prune(residual().eval(), IMAGE, {"stem": 6, "down_1": 5}, "random")
    bundle.write(tmp_path / "bundle", pruned.network, pruned.kept)
    dense = residual()
    before = state(dense)
    for folder in (tmp_path / "bundle", str(tmp_path / "bundle")):
        found = load_bundle(folder, dense, IMAGE)
        assert not found.training and torch.equal(found(IMAGE), pruned.network(IMAGE))
    assert state(dense) == before
