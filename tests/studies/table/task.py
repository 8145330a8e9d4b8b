"""The network and data of the bench of a table: ResNet-20 on Fashion-MNIST, twelve groups to prune, cheap to train."""

import torch
from torch import nn
from torch.nn import functional

from prunefleet.agent.tasks.ready.fashion_mnist import FashionMNIST
from prunefleet.agent.tasks.task import Budget, digest

SEED = 20240607
VERSION = "resnet20 1"
"""Changes with whatever changes the dense network: trials of another one do not belong into the same table."""
WIDTHS = (24, 48, 96)


class Block(nn.Module):
    """Two 3 × 3 convolutions added to their input, which a 1 × 1 convolution fits to them where the shapes differ."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels_in, h, w] → [n, channels, h / stride, w / stride]."""
        inner = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class ResNet20(nn.Module):
    """The CIFAR form of He et al. (2016), wider and with a stem of stride 2: three stages of three blocks.

    The stream of each stage and the inner convolution of each block are a group: twelve.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0])
        self.body: list[str] = []
        before = widths[0]
        for stage, width in enumerate(widths, start=1):
            for block in range(1, blocks + 1):
                self.body.append(f"s{stage}b{block}")
                self.add_module(self.body[-1], Block(before, width, 2 if (stage > 1 and block == 1) else 1))
                before = width
        self.head = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 1, h, w] → logits [n, classes]."""
        y = functional.relu(self.norm(self.stem(x)))
        for name in self.body:
            y = self.get_submodule(name)(y)
        logits: torch.Tensor = self.head(y.mean((2, 3)))
        return logits


class TableTask(FashionMNIST):
    """Fashion-MNIST with that network."""

    name, metrics = "table", ("top1",)
    batch_size = 128
    rungs = 1  # a look at validation on the way costs as much as a fifth of the training

    def network(self) -> nn.Module:
        """ResNet-20, initialised from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return ResNet20()

    def dense_budget(self) -> Budget:
        """Three epochs at learning rate 0.1: minutes on one core."""
        return Budget(epochs=3, lr=0.1, seed=SEED)

    def task_hash(self) -> str:
        """Of the version alone: the table outlives changes of code that leave the network as it is."""
        return digest(VERSION, repr(self.limit))
