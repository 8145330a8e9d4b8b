"""A detector of the blocks that YOLOv8 to v11 are made of, written anew in plain torch, with random weights.

C2f: a convolution whose channels are split in two, bottlenecks one after the other, and a concatenation of all that
there is on the way. SPPF: three max poolings in a row, concatenated (Redmon and Farhadi 2018, Jocher 2022). The neck is
a path aggregation network (Liu et al. 2018), the head is decoupled, and its boxes are distributions over distances
(Li et al. 2020). Published channel counts and depths; nothing is copied from the packages that train such networks.
"""

from collections.abc import Sequence

import torch
from torch import nn

BINS = 16
"""Of each of the four distances: a box has 4 · BINS channels."""


class Conv(nn.Sequential):
    """Convolution, norm, SiLU."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)


class Bottleneck(nn.Module):
    """Two 3 × 3 convolutions with a shortcut where that is asked for."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = Conv(channels, channels, 3), Conv(channels, channels, 3), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → the same."""
        y: torch.Tensor = self.second(self.first(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """Both halves of a convolution and what each bottleneck makes of the second half, concatenated and mixed."""

    def __init__(self, before: int, after: int, depth: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        half = after // 2
        self.split, self.mix = Conv(before, 2 * half), Conv((2 + depth) * half, after)
        self.blocks = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, before, h, w] → [n, after, h, w]."""
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        y: torch.Tensor = self.mix(torch.cat(parts, 1))
        return y


class SPPF(nn.Module):
    """A convolution, and three max poolings of it in a row, concatenated and mixed."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.reduce, self.mix = Conv(channels, channels // 2), Conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(kernel, 1, kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → the same."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        y: torch.Tensor = self.mix(torch.cat(parts, 1))
        return y


class Detect(nn.Module):
    """A decoupled head over several scales: one branch for boxes and one for classes on each of them."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        boxes, kinds = max(16, channels[0] // 4, 4 * BINS), max(channels[0], min(classes, 100))
        self.boxes = nn.ModuleList(self._branch(each, boxes, 4 * BINS) for each in channels)
        self.classes = nn.ModuleList(self._branch(each, kinds, classes) for each in channels)

    @staticmethod
    def _branch(before: int, inner: int, after: int) -> nn.Sequential:
        return nn.Sequential(Conv(before, inner, 3), Conv(inner, inner, 3), nn.Conv2d(inner, after, 1))

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """[n, c, h, w] of each scale → [n, 4 · BINS + classes, h, w] of each."""
        branches = zip(self.boxes, self.classes, maps, strict=True)
        return [torch.cat([boxes(x), classes(x)], 1) for boxes, classes, x in branches]


class Decoded(nn.Module):
    """A detector whose scales become one tensor, as exported ones give: distances in cells, and class scores."""

    def __init__(self, detector: nn.Module, classes: int) -> None:
        super().__init__()
        self.detector, self.classes = detector, classes
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] → [n, 4 + classes, cells of all scales]."""
        cells = torch.cat([each.flatten(2) for each in self.detector(image)], 2)
        boxes, classes = cells.split((4 * BINS, self.classes), 1)
        shares = boxes.unflatten(1, (4, BINS)).softmax(2)
        distances = (shares * self.bins[:, None]).sum(2)
        return torch.cat([distances, classes.sigmoid()], 1)


class YoloLike(nn.Module):
    """Backbone, neck and head; `width` and `depth` scale the channels and the bottlenecks of the largest one.

    Returns a list of [n, 4 · BINS + classes, h / s, w / s] for the strides s = 8, 16, 32. The smallest published one
    has width 0.25 and depth 1/3: 3.2 million parameters with 80 classes. Height and width are multiples of 32.
    """

    def __init__(self, classes: int = 80, width: float = 0.25, depth: float = 1 / 3) -> None:
        super().__init__()
        a, b, c, d, e = (round(width * each) for each in (64, 128, 256, 512, 1024))
        few, more = max(round(3 * depth), 1), max(round(6 * depth), 1)
        self.to8 = nn.Sequential(
            Conv(3, a, 3, 2), Conv(a, b, 3, 2), C2f(b, b, few, True), Conv(b, c, 3, 2), C2f(c, c, more, True)
        )
        self.to16 = nn.Sequential(Conv(c, d, 3, 2), C2f(d, d, more, True))
        self.to32 = nn.Sequential(Conv(d, e, 3, 2), C2f(e, e, few, True), SPPF(e))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.mix16, self.mix8 = C2f(d + e, d, few), C2f(c + d, c, few)
        self.down16, self.down32 = Conv(c, c, 3, 2), Conv(d, d, 3, 2)
        self.out16, self.out32 = C2f(c + d, d, few), C2f(d + e, e, few)
        self.head = Detect((c, d, e), classes)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[n, 3, h, w] → one tensor for each stride."""
        x8 = self.to8(image)
        x16 = self.to16(x8)
        x32 = self.to32(x16)
        y16 = self.mix16(torch.cat([self.up(x32), x16], 1))
        y8 = self.mix8(torch.cat([self.up(y16), x8], 1))
        y16 = self.out16(torch.cat([self.down16(y8), y16], 1))
        y32 = self.out32(torch.cat([self.down32(y16), x32], 1))
        found: list[torch.Tensor] = self.head([y8, y16, y32])
        return found


def yolo_like(classes: int = 80, decoded: bool = False, seed: int = 0) -> nn.Module:
    """The smallest one with random weights, the same for a seed; `decoded` gives one tensor instead of a list."""
    torch.manual_seed(seed)
    network = YoloLike(classes)
    return (Decoded(network, classes) if decoded else network).eval()
