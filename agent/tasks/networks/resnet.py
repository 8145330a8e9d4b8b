"""The demonstration network: nine weight layers with two residual blocks, small enough to train on two cores.

After D. Page's ResNet-9 (https://myrtle.ai/learn/how-to-train-your-resnet/), narrower and with a stem of stride 2.
"""

import torch
from torch import nn

WIDTHS = (32, 64, 128, 128)


class Block(nn.Module):
    """A residual block: two 3 × 3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = _conv(channels, channels), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → the same shape."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return x + torch.relu(self.norm2(self.conv2(inner)))


class Stage(nn.Module):
    """A convolution, halved resolution where `pool`, and a residual block where `block`."""

    def __init__(self, channels_in: int, channels: int, pool: bool, block: bool) -> None:
        super().__init__()
        self.conv, self.norm = _conv(channels_in, channels), nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.block0 = Block(channels) if block else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels_in, h, w] → [n, channels, h/2 or h, w/2 or w]."""
        y: torch.Tensor = self.block0(self.pool(torch.relu(self.norm(self.conv(x)))))
        return y


class ResNet9(nn.Module):
    """Stem and three stages of widths 32, 64, 128, 128; 28 × 28 inputs give 14.9 M multiply-accumulates."""

    def __init__(self, channels: int = 1, classes: int = 10, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        stem, first, second, third = widths
        self.stem, self.stem_norm = _conv(channels, stem, stride=2), nn.BatchNorm2d(stem)
        self.stage1 = Stage(stem, first, pool=True, block=True)
        self.stage2 = Stage(first, second, pool=True, block=False)
        self.stage3 = Stage(second, third, pool=False, block=True)
        self.head = nn.Linear(third, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → logits [n, classes]."""
        y = torch.relu(self.stem_norm(self.stem(x)))
        y = self.stage3(self.stage2(self.stage1(y)))
        logits: torch.Tensor = self.head(y.amax((2, 3)))
        return logits


def _conv(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
