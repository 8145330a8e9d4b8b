"""Pictures to detect in: discs, squares and triangles of any angle on textured backgrounds, the same for a seed."""

import math

import torch

KINDS = ("disc", "square", "triangle")
MOST = 4  # objects in a picture: at most one in each quarter


def pictures(count: int, side: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures [count, 3, side, side] from 0 to 1, boxes [count, MOST, 4] as x1, y1, x2, y2 in pixels, and kinds.

    Kinds [count, MOST] are places in KINDS, and -1 with a box of zeros where a quarter has no object.
    """
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    def texture(colour: torch.Tensor) -> torch.Tensor:
        fast, angle, phase = between(0.2, 1.2, 1, 1), between(0, math.pi, 1, 1), between(0, 6.3, 1, 1)
        waves = torch.sin(fast * (angle.cos() * x + angle.sin() * y) + phase)
        return colour[:, :, None, None] + 0.12 * waves[:, None] + between(-0.12, 0.12, 3, side, side)

    y, x = (each.float() for each in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    colour = between(0.2, 0.8, 3)
    image, boxes = texture(colour), torch.zeros(count, MOST, 4)
    kinds = torch.randint(0, len(KINDS), (count, MOST), generator=random)
    empty = torch.rand(count, MOST, generator=random) < 0.4
    empty[empty.all(1), 0] = False  # at least one
    kinds[empty] = -1
    for quarter in range(MOST):
        middle = side * (torch.tensor([quarter % 2, quarter // 2]) / 2 + 0.25 + between(-0.1, 0.1, 2))
        size, angle = side * between(0.08, 0.2, 1, 1), between(0, 2 * math.pi, 1, 1)
        right, down = x - middle[:, :1, None], y - middle[:, 1:, None]
        u, v = angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right
        reach = {"disc": (u**2 + v**2).sqrt(), "square": torch.maximum(u.abs(), v.abs()) * 1.15}
        reach["triangle"] = torch.maximum(v, 0.87 * u.abs() - 0.5 * v) * 1.5
        kind = kinds[:, quarter, None, None]
        inside = sum((kind == place) & (reach[name] <= size) for place, name in enumerate(KINDS)) > 0
        shift = torch.where(torch.rand(count, 3, generator=random) < 0.5, -1, 1) * between(0.2, 0.5, 3)
        image = torch.where(inside[:, None], texture(colour + shift), image)
        boxes[:, quarter] = torch.where(kinds[:, quarter, None] < 0, 0.0, _box(inside))
    return image.clamp(0, 1), boxes, kinds


def _box(inside: torch.Tensor) -> torch.Tensor:
    """[n, h, w] marked pixels → [n, 4] the box around them; any numbers where none is."""
    ends = []
    for line in (inside.any(1), inside.any(2)):  # columns, rows
        ends.append((line.int().argmax(1), line.shape[1] - line.flip(1).int().argmax(1)))
    (x1, x2), (y1, y2) = ends
    return torch.stack([x1, y1, x2, y2], 1).float()
