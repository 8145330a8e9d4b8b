"""Weights from files that hold tensors alone."""

from pathlib import Path

import pytest
import torch
from torchvision.models import mnasnet0_5

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.compress.weights import load_weights

IMAGE = torch.zeros(1, 3, 32, 32)


def test_a_network_that_asks_for_the_version_of_its_state_comes_back(tmp_path: Path) -> None:
    """MNASNet refuses a state without one, which safetensors cannot hold; its bundle is read all the same."""
    torch.manual_seed(0)
    network = mnasnet0_5(weights=None, num_classes=4).eval()
    groups = find_groups(network, IMAGE)
    pruned = prune(network, IMAGE, groups, {group.name: max(1, group.width // 2) for group in groups})
    bundle.write(tmp_path, pruned.network, pruned.kept)
    again = bundle.read(tmp_path, mnasnet0_5(weights=None, num_classes=4).eval(), IMAGE)
    with torch.no_grad():
        assert torch.equal(again(IMAGE + 0.3), pruned.network.eval()(IMAGE + 0.3))


def test_what_does_not_fit_is_refused() -> None:
    """A tensor that is missing is named, unless that is allowed."""
    network = torch.nn.Linear(2, 1)
    with pytest.raises(RuntimeError, match="bias"):
        load_weights(network, {"weight": torch.ones(1, 2)})
    load_weights(network, {"weight": torch.ones(1, 2)}, strict=False)
    assert network.weight.tolist() == [[1.0, 1.0]]
