"""Quality metrics of classification, each as a function of means over examples.

A metric is told twice: which figures it needs of each example, and what it makes of their means. So the same few lines
give its value on a split, and its bootstrap interval, paired between two networks, over resampled examples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from prunefleet.objective.errors import BadInput

Columns = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits [n, classes], labels [n]) → figures [n, k] of each example."""
Value = Callable[[torch.Tensor], torch.Tensor]
"""Means of those figures, [..., k] → the metric, [...], as a fraction."""


@dataclass(frozen=True)
class Metric:
    """A metric; see `Columns` and `Value`."""

    columns: Columns
    value: Value


def metric(name: str, positive: int = 1) -> Metric:
    """The metric of that name: topN, balanced_accuracy, or recall, precision and f1 of the class `positive`.

    Raises `BadInput` for another name.
    """
    if name.startswith("top") and name[3:].isdecimal() and int(name[3:]):
        most = int(name[3:])
        return Metric(lambda logits, labels: _within(logits, labels, most), lambda means: means[..., 0])
    if name == "balanced_accuracy":
        return Metric(_by_class, _mean_recall)
    if name in _OF_POSITIVE:
        columns, value = _OF_POSITIVE[name]
        return Metric(lambda logits, labels: columns(_confusion(logits, labels, positive)), value)
    known = ", ".join(("top1", "top5", "balanced_accuracy", *_OF_POSITIVE))
    raise BadInput("metrics", name, f"use {known}, or give the task an evaluate() of its own")


def ranks(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """int [n]: how many classes are chosen before the right one; of equal scores the first class is chosen first.

    Nothing compares with NaN: an example with such scores would rank as if it were right, and so ranks last.
    """
    own, place = logits.gather(1, labels[:, None]), torch.arange(logits.shape[1])
    before = (logits > own) | ((logits == own) & (place < labels[:, None]))
    return torch.where(logits.isfinite().all(1), before.sum(1), logits.shape[1])


def _within(logits: torch.Tensor, labels: torch.Tensor, most: int) -> torch.Tensor:
    """[n, 1]: whether the right class is among the first `most`."""
    return (ranks(logits, labels) < most)[:, None]


def _by_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[n, 2 · classes]: which class an example is of, and the same where it was recognised."""
    own = torch.nn.functional.one_hot(labels, logits.shape[1])
    return torch.cat([own, own * (ranks(logits, labels) == 0)[:, None]], 1)


def _mean_recall(means: torch.Tensor) -> torch.Tensor:
    """The mean recall of the classes that there are examples of."""
    there, found = means.chunk(2, -1)
    return (found / there.clamp(min=1e-12)).sum(-1) / (there > 0).sum(-1).clamp(min=1)


def _confusion(logits: torch.Tensor, labels: torch.Tensor, positive: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[n] each: whether an example is of the positive class, and whether it is taken for one."""
    return labels == positive, ranks(logits, torch.full_like(labels, positive)) == 0


def _found_of(whole: int) -> Callable[[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """[n, 2]: true positives, and all that are of the class (0) or taken for it (1)."""
    return lambda confusion: torch.stack([confusion[0] & confusion[1], confusion[whole]], 1)


def _f1_columns(confusion: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """[n, 3]: true positives, all of the class, all taken for it."""
    return torch.stack([confusion[0] & confusion[1], *confusion], 1)


def _quotient(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """0 where there is no whole."""
    return part / whole.clamp(min=1e-12)


_OF_POSITIVE: dict[str, tuple[Callable[[tuple[torch.Tensor, torch.Tensor]], torch.Tensor], Value]] = {
    "recall": (_found_of(0), lambda means: _quotient(means[..., 0], means[..., 1])),
    "precision": (_found_of(1), lambda means: _quotient(means[..., 0], means[..., 1])),
    "f1": (_f1_columns, lambda means: _quotient(2 * means[..., 0], means[..., 1] + means[..., 2])),
}
