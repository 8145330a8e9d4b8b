"""Small random networks: layers with things between them that move, join, divide or weigh channels."""

import random
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Step = Callable[[nn.Module, torch.Tensor], torch.Tensor]
SIDE = 6

REORDERINGS: dict[str, Step] = {
    "flip": lambda net, y: y.flip(1),
    "roll": lambda net, y: y.roll(3, 1),
    "roll by size": lambda net, y: y.roll(y.shape[1] // 2, 1),
    "index": lambda net, y: y[:, torch.arange(y.shape[1] - 1, -1, -1)],
    "channels last and back": lambda net, y: y.permute(0, 2, 3, 1).flip(3).permute(0, 3, 1, 2),
    "shuffle": lambda net, y: functional.channel_shuffle(y, 2),
    "shuffle by view": lambda net, y: y.view(len(y), 2, y.shape[1] // 2, *y.shape[2:]).transpose(1, 2).flatten(1, 2),
    "halves swapped": lambda net, y: torch.cat(y.chunk(2, 1)[::-1], 1),
    "even and odd": lambda net, y: torch.cat([y[:, ::2], y[:, 1::2]], 1),
    "stacked halves": lambda net, y: torch.stack(y.chunk(2, 1), 2).flatten(1, 2),
}
"""What puts channels in another order and nothing else; each wants an even number of them."""

OTHERS: dict[str, Step] = {
    "nothing": lambda net, y: y,
    "relu": lambda net, y: torch.relu(y),
    "sigmoid": lambda net, y: torch.sigmoid(y),
    "gate by mean": lambda net, y: y * torch.sigmoid(y.mean((2, 3), keepdim=True)),
    "gate by place": lambda net, y: y * torch.sigmoid(y.amax(1, keepdim=True)),
    "doubled": lambda net, y: torch.cat([y, y.neg()], 1)[:, : y.shape[1]],
    "added to itself": lambda net, y: y + y.flip(1),
    "constant slice": lambda net, y: torch.cat([y[:, :2], y[:, 2:]], 1),
    "softmax": lambda net, y: y.softmax(1),
    "pooled": lambda net, y: functional.avg_pool2d(y, 3, 1, 1),
    "halves weighed": lambda net, y: torch.cat([y.chunk(2, 1)[0], y.chunk(2, 1)[1] * 2], 1),
}


class RandomNetwork(nn.Module):
    """Convolutions with steps between them, some in residual branches, and a head of three outputs."""

    def __init__(self, seed: int, reorder_only: bool) -> None:
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        names = list(REORDERINGS) if reorder_only else [*REORDERINGS, *OTHERS]
        widths = [draw.choice([4, 8, 12]) for _ in range(draw.randint(2, 3))]
        self.plan: list[tuple[str, bool]] = []
        self.layers, self.norms, self.branches = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 3
        for width in widths:
            grouped = not reorder_only and before % 4 == width % 4 == 0 and draw.random() < 0.25
            self.layers.append(nn.Conv2d(before, width, 3, padding=1, groups=2 if grouped else 1))
            self.norms.append(_norm(draw, width, reorder_only))
            self.branches.append(nn.Conv2d(width, width, 1))
            self.plan.append((draw.choice(names), not reorder_only and draw.random() < 0.3))
            before = width
        self.flat = draw.random() < 0.4
        self.last_turned = draw.random() < 0.5
        self.head = nn.Linear(before * (SIDE * SIDE if self.flat else 1), 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, 6, 6] → [n, 3]."""
        y = x
        for layer, norm, branch, (name, joined) in zip(self.layers, self.norms, self.branches, self.plan, strict=True):
            y = torch.relu(norm(layer(y)))
            y = y + branch(y) if joined else y
            y = (REORDERINGS | OTHERS)[name](self, y)
        y = y.permute(0, 2, 3, 1) if self.flat and self.last_turned else y
        logits: torch.Tensor = self.head(y.flatten(1) if self.flat else y.mean((2, 3)))
        return logits


def _norm(draw: random.Random, width: int, plain: bool) -> nn.Module:
    kinds: list[Callable[[int], nn.Module]] = [lambda _: nn.Identity(), nn.BatchNorm2d]
    if not plain:
        kinds.append(lambda channels: nn.GroupNorm(2, channels))
    return draw.choice(kinds)(width)


def image(seed: int = 0) -> torch.Tensor:
    """Return inputs [2, 3, 6, 6]."""
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
