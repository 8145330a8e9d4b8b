"""A small detector without anchors: C2f blocks, SPPF, a neck over two scales, a head with a branch for each purpose."""

import torch
from torch import nn
from torch.nn.functional import one_hot, softplus
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from prunefleet import Boxes

STRIDES = (8, 16)  # pixels of a cell's side, by scale
LARGE = 20.0  # objects from so many pixels on are found at the coarse scale
Maps = dict[str, list[torch.Tensor]]
"""What the network returns for [n, 3, h, w]: "boxes" [n, 4, h / s, w / s] of each stride, and "classes" like them."""


def conv(before: int, after: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.SiLU())


class C2f(nn.Module):
    """Both halves of a convolution, and a residual block of the second half, concatenated and mixed."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.split, self.mix = conv(before, after), conv(3 * after // 2, after)
        self.block = nn.Sequential(conv(after // 2, after // 2, 3), conv(after // 2, after // 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.split(x).chunk(2, 1)
        return self.mix(torch.cat([first, second, second + self.block(second)], 1))


class SPPF(nn.Module):
    """Max pooling once, twice and three times, concatenated and mixed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.mix = conv(channels, channels // 2), conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.mix(torch.cat(parts, 1))


class Detect(nn.Module):
    """At each cell the distances to the sides of its object, and a score for each class."""

    def __init__(self, channels: tuple[int, ...], classes: int, inner: int = 32) -> None:
        super().__init__()

        def branch(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(conv(before, inner, 3), conv(inner, inner, 3), nn.Conv2d(inner, after, 1))

        self.boxes = nn.ModuleList(branch(each, 4) for each in channels)
        self.classes = nn.ModuleList(branch(each, classes) for each in channels)
        for each in self.classes:
            nn.init.constant_(each[-1].bias, -4.0)  # nearly all cells have no object

    def forward(self, maps: list[torch.Tensor]) -> Maps:
        return {
            "boxes": [branch(x) for branch, x in zip(self.boxes, maps, strict=True)],
            "classes": [branch(x) for branch, x in zip(self.classes, maps, strict=True)],
        }


class Detector(nn.Module):
    """Returns `Maps`; given true boxes [n, m, 4] and kinds [n, m] too, its losses instead."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.to8 = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32), conv(32, 64, 3, 2), C2f(64, 64))
        self.to16 = nn.Sequential(conv(64, 96, 3, 2), C2f(96, 96), SPPF(96))
        self.up, self.mix8 = nn.Upsample(scale_factor=2), C2f(160, 64)
        self.down, self.mix16 = conv(64, 64, 3, 2), C2f(160, 96)
        self.head = Detect((64, 96), classes)

    def forward(self, image: torch.Tensor, boxes: torch.Tensor | None = None, kinds: torch.Tensor | None = None):
        x8 = self.to8(image)
        x16 = self.to16(x8)
        y8 = self.mix8(torch.cat([self.up(x16), x8], 1))
        y16 = self.mix16(torch.cat([self.down(y8), x16], 1))
        found = self.head([y8, y16])
        return found if boxes is None else losses(found, boxes, kinds)


def corners(maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes [n, cells, 4] in pixels of all scales, the cells' middles [cells, 2], and their strides [cells, 1]."""
    middles, strides = [], []
    for stride, each in zip(STRIDES, maps, strict=True):
        rows, columns = (stride * (torch.arange(size) + 0.5) for size in each.shape[2:])
        middles.append(torch.cartesian_prod(rows, columns).flip(1))
        strides.append(torch.full((len(middles[-1]), 1), float(stride)))
    middle, stride = torch.cat(middles), torch.cat(strides)
    distances = stride * softplus(torch.cat([each.flatten(2) for each in maps], 2).transpose(1, 2))
    return torch.cat([middle - distances[..., :2], middle + distances[..., 2:]], 2), middle, stride


def losses(found: Maps, boxes: torch.Tensor, kinds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Focal loss of the classes; generalised IoU of the boxes of cells that have an object."""
    guessed, middle, stride = corners(found["boxes"])
    scores = torch.cat([each.flatten(2) for each in found["classes"]], 2).transpose(1, 2)
    size = boxes[..., 2:] - boxes[..., :2]
    wanted = torch.where(size.amax(2) < LARGE, *(torch.tensor(float(each)) for each in STRIDES))
    away = (middle - (boxes[..., None, :2] + boxes[..., None, 2:]) / 2).abs().amax(3)  # [n, m, cells]
    near = (away < stride[:, 0]) & (wanted[..., None] == stride[:, 0]) & (kinds[..., None] >= 0)
    # Of several objects a cell takes the smallest.
    taken = torch.where(near, size.prod(2)[..., None], torch.inf).argmin(1)
    cell = near.any(1)
    target = one_hot(kinds.gather(1, taken).clamp(min=0), scores.shape[2]) * cell[..., None]
    true = boxes.gather(1, taken[..., None].expand(-1, -1, 4))
    count = cell.sum().clamp(min=1)
    return {
        "classes": sigmoid_focal_loss(scores, target.float(), reduction="sum") / count,
        "boxes": generalized_box_iou_loss(guessed[cell], true[cell], reduction="sum") / count,
    }


def boxes_of(found: Maps, least: float = 0.02, overlap: float = 0.5, most: int = 50) -> list[Boxes]:
    """The boxes of each picture by score: what overlaps a better one of its kind is left out."""
    scores = torch.cat([each.flatten(2) for each in found["classes"]], 2).transpose(1, 2).sigmoid()
    told = []
    for corner, score in zip(corners(found["boxes"])[0], scores, strict=True):
        cell, kind = (score > least).nonzero(as_tuple=True)
        keep = batched_nms(corner[cell], score[cell, kind], kind, overlap)[:most]
        told.append(Boxes(corner[cell[keep]], kind[keep], score[cell[keep], kind[keep]]))
    return told
