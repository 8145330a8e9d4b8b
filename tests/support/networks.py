"""Small networks to prune, and a task on made-up data."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from prunefleet.agent.compress.cut import width
from prunefleet.agent.compress.groups import Group
from prunefleet.agent.tasks.task import Budget


def channels_of(network: nn.Module, groups: Iterable[Group]) -> dict[str, int]:
    """The channels that `network` has now in each group."""
    return {group.name: width(network.get_submodule(group.root), out=True) for group in groups}


class Residual(nn.Module):
    """A stem and residual blocks of one stream, of given inner widths; each block may end in a concatenation."""

    def __init__(self, stream: int, inner: Sequence[int], concat: Sequence[int] = (), classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, stream, 3, padding=1)
        self.norm = nn.BatchNorm2d(stream)
        self.down = nn.ModuleList(nn.Conv2d(stream, width, 3, padding=1, bias=False) for width in inner)
        self.up = nn.ModuleList(nn.Conv2d(width, stream, 1) for width in inner)
        self.branches = nn.ModuleList(nn.Conv2d(stream, width, 3, padding=1) for width in concat)
        self.head = nn.Linear(sum(concat) or stream, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 1, h, w] → [n, classes]."""
        y = torch.relu(self.norm(self.stem(x)))
        for down, up in zip(self.down, self.up, strict=True):
            y = y + torch.relu(up(torch.relu(down(y))))
        if len(self.branches):
            y = torch.cat([branch(y) for branch in self.branches], 1)
        logits: torch.Tensor = self.head(y.mean((2, 3)))
        return logits


class Shuffled(nn.Module):
    """A channel shuffle, which DepGraph cannot trace where a reshape's channels do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 1, h, w] → [n, 3], by way of two groups of channels swapped."""
        y = self.first(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        logits: torch.Tensor = self.last(y.mean((2, 3)))
        return logits


class Scores(NamedTuple):
    """Part of what `Several` returns."""

    best: torch.Tensor
    likely: torch.Tensor


class Several(nn.Module):
    """A network that returns tensors of all kinds in containers of all kinds, some twice and some the same always."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, width, 3, 2, 1)
        self.second = nn.Conv2d(width, width, 3, 2, 1)
        self.boxes = nn.Conv2d(width, 4, 1)
        self.head = nn.Linear(width, 3)
        self.register_buffer("anchors", torch.arange(12.0).reshape(6, 2))

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        """[n, 1, h, w] → nested containers; of `steps` the second dimension is the batch's."""
        y = torch.relu(self.first(x))
        z = torch.relu(self.second(y))
        boxes, logits = self.boxes(z), self.head(z.mean((2, 3)))
        return {
            "logits": logits,
            "levels": [boxes, (boxes, {"wide": self.boxes(y)})],
            "scores": Scores(logits.argmax(1), logits > 0),
            "anchors": self.anchors,
            "image": x,
            "steps": boxes.flatten(2).permute(2, 0, 1),
            "loss": None,
            "stride": 4,
            "exact": logits.double(),
            "again": torch.relu(self.second(y)),
        }


class Stretched(nn.Conv2d):
    """A convolution of a user's own class."""


class SyntheticTask:
    """Four classes of noisy stripes: learnt in seconds, of any network on 1 × 16 × 16."""

    name = "synthetic"
    metrics = ("top1",)

    def __init__(self, make: Callable[[], nn.Module] | None = None) -> None:
        self._make = make or (lambda: Residual(32, (32,), classes=4))
        self.evaluated = 0

    def network(self) -> nn.Module:
        """The network that was given."""
        return self._make()

    def example_input(self) -> torch.Tensor:
        """[1, 1, 16, 16]."""
        return self.images(1, 9)[0]

    def images(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[count, 1, 16, 16] and classes [count]."""
        random = torch.Generator().manual_seed(seed)
        classes = torch.randint(0, 4, (count,), generator=random)
        waves = torch.sin(torch.arange(16) * (classes[:, None] + 1) * 0.8)
        noise = torch.randn(count, 1, 16, 16, generator=random)
        return waves[:, None, None, :] + 0.5 * noise, classes

    def fit(self, network: nn.Module, budget: Budget, report: Callable[..., bool]) -> None:
        """A few steps of Adam."""
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        network.train()
        for step in range(round(20 * budget.epochs)):
            images, classes = self.images(64, step)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), classes).backward()
            optimiser.step()
        network.eval()

    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """Top-1 on 256 images."""
        self.evaluated += 1
        images, classes = self.images(limit or 256, {"validation": 1001, "holdout": 1002, "test": 1003}[split])
        with torch.no_grad():
            return {"top1": float((network(images).argmax(1) == classes).float().mean())}

    def calibration(self) -> Iterable[torch.Tensor]:
        """Two batches."""
        return [self.images(64, seed)[0] for seed in (0, 1)]
