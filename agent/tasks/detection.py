"""Mean average precision of object detections, on all images or on any resample of them.

As COCO computes it (Lin et al. 2014): detections of a class are taken from the highest score on, each claims the object
of its class and image that it overlaps most and that is not claimed yet, and precision is read at 101 values of recall.
What differs: detections of the same score count together, so that neither the order of images nor that of detections
matters, and there is neither a limit of detections per image nor a class of crowds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from prunefleet.objective.errors import BadInput

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
RECALLS = np.linspace(0, 1, 101)
COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Overlaps that COCO's own metric is the mean over."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image: `corners` [n, 4] as x1, y1, x2, y2, whole `labels` [n], and `scores` [n] of found ones.

    Raises `BadInput` where the shapes do not fit.
    """

    corners: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if tuple(self.corners.shape) != (n, 4):
            raise BadInput("corners", tuple(self.corners.shape), f"give four numbers for each of the {n} labels")
        if self.scores is not None and tuple(self.scores.shape) != (n,):
            raise BadInput("scores", tuple(self.scores.shape), f"give one for each of the {n} labels")


class AveragePrecision:
    """The mean average precision of `found` boxes, which have scores, against the `true` ones, image by image.

    Averaged over the classes that the images have objects of, and over the `overlaps` (intersection over union from
    which a box counts as found). A found box with a number that is not finite counts as not found.

    Raises `BadInput` where there are not as many images of both, or a found box has no score.
    """

    def __init__(self, found: Sequence[Boxes], true: Sequence[Boxes], overlaps: Iterable[float] = (0.5,)) -> None:
        if len(found) != len(true):
            raise BadInput("found", len(found), f"give the boxes of as many images as there are true ones, {len(true)}")
        if any(each.scores is None for each in found):
            raise BadInput("found", "boxes without scores", "give Boxes(corners, labels, scores)")
        here, there, limits = _joined(found), _joined(true), list(overlaps)
        self._count = len(true)
        kinds = [int(kind) for kind in np.unique(there.labels)]
        self._classes = [_of_class(here.of(kind), there.of(kind), limits, self._count) for kind in kinds]

    def __len__(self) -> int:
        """The number of images."""
        return self._count

    def __call__(self, images: torch.Tensor | None = None) -> float:
        """The metric on these images, int64 [n] in which one may come several times; on each once unless given.

        A fraction; 0 where they have no object at all.
        """
        rows = np.arange(self._count) if images is None else images.numpy()
        times = np.bincount(rows, minlength=self._count).astype(np.float64)
        each = [kind.precision(times) for kind in self._classes if kind.objects @ times > 0]
        return float(np.mean(each)) if each else 0.0


@dataclass(frozen=True)
class _Joined:
    """Boxes of all images in one list: `image` [n] is the number of the one that each is in."""

    image: Rows
    corners: Floats
    labels: Floats
    scores: Floats

    def of(self, kind: int) -> "_Joined":
        return self._where(self.labels == kind)

    def finite(self) -> "_Joined":
        return self._where(np.isfinite(self.scores) & np.isfinite(self.corners).all(1))

    def _where(self, chosen: NDArray[np.bool_]) -> "_Joined":
        return _Joined(self.image[chosen], self.corners[chosen], self.labels[chosen], self.scores[chosen])


def _joined(images: Sequence[Boxes]) -> _Joined:
    def one(parts: list[torch.Tensor], *shape: int) -> Floats:
        return np.concatenate([np.zeros((0, *shape)), *(each.detach().cpu().double().numpy() for each in parts)])

    image = np.repeat(np.arange(len(images)), [len(each.labels) for each in images])
    scores = one([each.labels * 0.0 if each.scores is None else each.scores for each in images])
    corners, labels = one([each.corners for each in images], 4), one([each.labels for each in images])
    return _Joined(image, corners, labels, scores).finite()


@dataclass(frozen=True)
class _Class:
    """What average precision needs to know of one class.

    Of each detection, from the highest score on: `image` [n], whether it is `right` at each overlap [overlaps, n], and
    `last` [n], whether the next one has a lower score. `objects` [images] counts the true ones.
    """

    image: Rows
    right: Floats
    last: NDArray[np.bool_]
    objects: Floats

    def precision(self, times: Floats) -> float:
        """Average precision where image i comes `times[i]` times, averaged over the overlaps."""
        weight = times[self.image]
        taken = np.cumsum(weight)[self.last]
        right = np.cumsum(weight * self.right, axis=1)[:, self.last]
        recall = right / (self.objects @ times)
        # At each recall the best precision at that one or at a higher one.
        best = np.maximum.accumulate((right / np.maximum(taken, 1e-12))[:, ::-1], axis=1)[:, ::-1]
        return float(np.mean([_read(*each) for each in zip(recall, best, strict=True)]))


def _read(recall: Floats, best: Floats) -> float:
    """Mean of the precision at `RECALLS`; 0 at those that are not reached."""
    places = np.searchsorted(recall, RECALLS - 1e-12)
    return float(np.append(best, 0.0)[places].mean())


def _of_class(found: _Joined, there: _Joined, limits: Sequence[float], images: int) -> _Class:
    order = np.lexsort((*found.corners.T, found.image, -found.scores))
    image, corners, scores = found.image[order], found.corners[order], found.scores[order]
    right = np.zeros((len(limits), len(order)))
    own, theirs = _places(image, images), _places(there.image, images)
    for rows, objects in zip(own, theirs, strict=True):
        overlap = overlaps_of(corners[rows], there.corners[objects])
        right[:, rows] = [_claimed(overlap, limit) for limit in limits]
    last = np.append(scores[1:] < scores[:-1], np.ones(min(len(scores), 1), bool))
    return _Class(image, right, last, np.bincount(there.image, minlength=images).astype(np.float64))


def _places(image: Rows, images: int) -> list[Rows]:
    """Where the boxes of each image are in a list, in their order."""
    ends = np.bincount(image, minlength=images).cumsum()[:-1]
    return np.split(np.argsort(image, kind="stable"), ends)


def overlaps_of(one: Floats, other: Floats) -> Floats:
    """Intersection over union of each box of `one` [n, 4] with each of `other` [m, 4], as [n, m]."""
    corner, end = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    both = (end - corner).clip(0).prod(2)
    area, area_other = ((each[:, 2:] - each[:, :2]).prod(1) for each in (one, other))
    found: Floats = both / np.maximum(area[:, None] + area_other - both, 1e-12)
    return found


def _claimed(overlap: Floats, limit: float) -> list[bool]:
    """Whether each detection [n, m], in this order, claims an object: the one it overlaps most of those not claimed."""
    free, right = np.ones(overlap.shape[1], bool), []
    for each in overlap:
        left = np.where(free, each, -1.0)
        best = int(left.argmax()) if len(left) else -1
        right.append(best >= 0 and bool(left[best] >= limit))
        if right[-1]:
            free[best] = False
    return right
