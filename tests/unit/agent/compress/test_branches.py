"""Residual branches that are left out whole."""

from pathlib import Path

import pytest
import torch
from torch import nn

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.groups import survey
from prunefleet.agent.compress.prune import prune
from prunefleet.objective.errors import BadInput

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Two convolutions beside a skip connection, which the block itself adds."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, inside, 3, padding=1), nn.BatchNorm2d(inside)
        self.second, self.last_norm = nn.Conv2d(inside, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last_norm(self.second(torch.relu(self.norm(self.first(x)))))
        return torch.relu(x + y)


class Residual(nn.Module):
    """A stem, a block that adds its branch itself, a branch that is a module, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, padding=1), Block(8, 6), nn.Linear(8, 3)
        self.branch = nn.Sequential(nn.Conv2d(8, 10, 1), nn.ReLU(), nn.Conv2d(10, 8, 1))
        self.wide = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(torch.relu(self.stem(x)))
        y = torch.relu(y + self.branch(y))
        return self.head(self.wide(y).mean((2, 3)))


def test_a_branch_is_left_out_as_if_its_end_were_silent() -> None:
    """Both kinds: a block that adds what it was given, and a module whose output is added."""
    network = Residual().eval()
    groups = survey(network, IMAGE).groups
    branches = {group.name: group.branch for group in groups if group.branch}
    assert {name: branch.module for name, branch in branches.items()} == {
        "block_first": "block",
        "branch_0": "branch",
    }
    pruned = prune(network, IMAGE, groups, dict.fromkeys(branches, 0))
    with torch.no_grad():
        for layer in (network.block.second, network.block.last_norm, network.branch[2]):
            layer.weight.zero_(), layer.bias.zero_()
        assert torch.allclose(network(IMAGE), pruned.network(IMAGE), atol=1e-6)
    assert pruned.kept["block_first"] == pruned.kept["branch_0"] == 0
    assert not any(name.startswith(("block.first", "branch")) for name, _ in pruned.network.named_parameters())


def test_a_network_without_branches_comes_back_from_its_files(tmp_path: Path) -> None:
    """With the weights that are left."""
    network = Residual().eval()
    groups = survey(network, IMAGE).groups
    pruned = prune(network, IMAGE, groups, {"block_first": 0, "branch_0": 5, "stem": 6})
    bundle.write(tmp_path, pruned.network, pruned.kept)
    back = bundle.read(tmp_path, Residual(), IMAGE)
    assert torch.equal(back(IMAGE), pruned.network(IMAGE))


def test_a_group_that_is_no_branch_keeps_a_channel() -> None:
    """The line says from which number on; beside a branch it says what 0 means."""
    network = Residual().eval()
    groups = survey(network, IMAGE).groups
    with pytest.raises(BadInput, match=r"keep 1 to 8 channels$"):
        prune(network, IMAGE, groups, {"stem": 0})
    with pytest.raises(BadInput, match="or 0 to leave its branch out"):
        prune(network, IMAGE, groups, {"branch_0": 11})
