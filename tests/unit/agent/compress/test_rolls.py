"""Rolls: of channels, which puts readers into another order, and of a picture, which does not."""

import pytest
import torch
from torch import nn

from prunefleet.agent.compress.groups import survey


class Rolled(nn.Module):
    """A convolution, a norm over channels that are the last dimension, a roll, and what reads it."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b, self.dims = nn.Conv2d(3, 8, 3), nn.LayerNorm(8), nn.Linear(8, 2), dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] → [n, h - 2, w - 2, 2]."""
        y: torch.Tensor = self.norm(self.a(x).permute(0, 2, 3, 1))
        found: torch.Tensor = self.b(y.roll([1] * len(self.dims), self.dims))
        return found


@pytest.mark.parametrize("dims", [(1,), (1, 2), (-2,)])
def test_a_roll_of_a_picture_leaves_channels_in_their_order(dims: tuple[int, ...]) -> None:
    """Shifted windows are such a roll: influence proves the group, where silence cannot because of the norm."""
    (group,) = survey(Rolled(*dims), torch.randn(1, 3, 8, 8)).groups
    assert (group.width, group.multiple, group.rolled, group.proof) == (8, 1, False, "influence")
