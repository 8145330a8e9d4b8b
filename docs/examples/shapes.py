"""Pictures to detect in: discs, squares and triangles of any angle on textured backgrounds, the same for a seed."""

import math

import torch

KINDS = ("disc", "square", "triangle")
MOST = 4  # objects in a picture: at most one in each quarter
AT_ONCE = 50
Pictures = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""[n, 3, side, side] from 0 to 1; boxes [n, MOST, 4] as x1, y1, x2, y2 in pixels; and kinds [n, MOST], places in KINDS.

Where a quarter of the picture has no object the kind is -1 and the box is zeros.
"""


def pictures(count: int, side: int = 64, seed: int = 0) -> Pictures:
    random = torch.Generator().manual_seed(seed)
    parts = [_some(min(AT_ONCE, count - start), side, random) for start in range(0, count, AT_ONCE)]
    images, boxes, kinds = (torch.cat(each) for each in zip(*parts, strict=True))
    return images, boxes, kinds


def mirrored(images: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x1, y1, x2, y2 = boxes.unbind(2)
    side = images.shape[3]
    return images.flip(3), torch.stack([side - x2, y1, side - x1, y2], 2)


def _some(count: int, side: int, random: torch.Generator) -> Pictures:
    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    def texture(colour: torch.Tensor) -> torch.Tensor:
        fast, angle, phase = between(0.2, 1.2, 1, 1), between(0, math.pi, 1, 1), between(0, 6.3, 1, 1)
        waves = torch.sin(fast * angle.cos() * x + fast * angle.sin() * y + phase)
        return colour[:, :, None, None] + 0.12 * waves[:, None]

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
        reach = (u.square() + v.square()).sqrt(), torch.maximum(u.abs(), v.abs()) * 1.15
        reach = (*reach, torch.maximum(v, 0.87 * u.abs() - 0.5 * v) * 1.5)
        kind = kinds[:, quarter, None, None]
        inside = sum((kind == place) & (each <= size) for place, each in enumerate(reach)) > 0
        shift = torch.where(torch.rand(count, 3, generator=random) < 0.5, -1, 1) * between(0.2, 0.5, 3)
        image = torch.where(inside[:, None], texture(colour + shift), image)
        boxes[:, quarter] = torch.where(kinds[:, quarter, None] < 0, 0.0, _box(inside))
    return (image + between(-0.12, 0.12, 3, side, side)).clamp(0, 1), boxes, kinds


def _box(inside: torch.Tensor) -> torch.Tensor:
    """[n, h, w] marked pixels → [n, 4] the box around them; any numbers where none is."""
    columns, rows = inside.any(1).int(), inside.any(2).int()
    first, last = (torch.stack([side(each) for each in (columns, rows)], 1) for side in (_first, _last))
    return torch.cat([first, last], 1).float()


def _first(line: torch.Tensor) -> torch.Tensor:
    return line.argmax(1)


def _last(line: torch.Tensor) -> torch.Tensor:
    return line.shape[1] - line.flip(1).argmax(1)
