"""Image classification: a network and labelled images are all that is left to give."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional

from agent.measure import lock
from agent.tasks.distill import DistilledLoss, SoftTargets
from agent.tasks.task import Budget, Report
from agent.tasks.training import Batch, Schedule, bf16_pays, train
from objective.errors import BadInput

EVALUATED_AT_ONCE = 500
REPORT_EVERY = 10  # steps


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 [n, channels, h, w], `labels` int64 [n], in an order that is random but fixed."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8:
            got = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise BadInput("pixels", got, "give uint8 [n, channels, h, w]")
        if len(self.pixels) != len(self.labels) or len(self.labels) == 0:
            raise BadInput("labels", len(self.labels), f"give one label per image: {len(self.pixels)}")


class Classification(ABC):
    """A `Task` of classifying images, with the metrics top1 and top5, or others of that kind.

    A subclass gives `name`, `network` and `splits`, and changes what does not suit it below: `lr` is that of
    fine-tuning.
    """

    name: str
    metrics: tuple[str, ...] = ("top1", "top5")
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    batch_size: int = 256
    lr: float = 0.05
    flip: bool = True
    shift: int = 2
    rungs: int = 4

    @abstractmethod
    def network(self) -> nn.Module:
        """The dense network, freshly initialised or pretrained: the same on every call and every host."""

    @abstractmethod
    def splits(self) -> Mapping[str, Images]:
        """Images of "train", "validation", "holdout" and "test"; called once."""

    @cached_property
    def images(self) -> Mapping[str, Images]:
        """The splits, loaded when first needed."""
        found = self.splits()
        for split in ("train", "validation", "holdout", "test"):
            if split not in found:
                raise BadInput("splits", sorted(found), f"give the split {split!r} too")
        return found

    def dense_budget(self) -> Budget:
        """How the dense network is trained."""
        return Budget(epochs=10, lr=0.1)

    def example_input(self) -> torch.Tensor:
        """[1, channels, h, w], normalised."""
        return self.prepare(self.images["validation"].pixels[:1])

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [n, channels, h, w] → float, normalised by `mean` and `std` of values between 0 and 1."""
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) * 255 for each in (self.mean, self.std))
        return (pixels.float() - mean) / std

    def fit(self, network: nn.Module, budget: Budget, report: Report) -> None:
        """SGD on augmented images; reports train_loss every few steps, val_<metric> at every rung but the last."""
        train_images = self.images["train"]
        steps = max(1, round(budget.epochs * len(train_images.labels) / self.batch_size))
        if budget.epochs == 0:
            return
        targets = SoftTargets(budget.teacher) if budget.teacher else None
        loss = DistilledLoss(targets)
        batches = self.batches(train_images, budget.seed)
        bf16 = bf16_pays(self.name, network, next(batches), loss)
        schedule = Schedule(budget.lr or self.lr, steps)
        rungs = max(self.rungs, round(budget.epochs))
        progress = _Progress(self, network, report, steps, budget.epochs, rungs)
        try:
            train(network, batches, loss, schedule, progress.step, bf16)
        finally:
            if targets:
                targets.keep()

    def batches(self, images: Images, seed: int) -> Iterator[Batch]:
        """Augmented batches for ever, every image once an epoch."""
        random = torch.Generator().manual_seed(seed)
        size = min(self.batch_size, len(images.labels))
        while True:
            order = torch.randperm(len(images.labels), generator=random)
            for chosen in torch.split(order[: len(order) // size * size], size):
                pixels = augment(images.pixels[chosen], self.flip, self.shift, random)
                yield self.prepare(pixels), images.labels[chosen]

    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """top1 and top5 on a split, on its first `limit` images if given; in float32."""
        ranks = self._ranks(network, split, limit)
        return {metric: float((ranks < int(metric[3:])).double().mean()) for metric in self.metrics}

    def correct(self, network: nn.Module, split: str) -> torch.Tensor:
        """bool [n]: which images of a split are classified rightly."""
        return self._ranks(network, split, None) == 0

    @torch.no_grad()
    def _ranks(self, network: nn.Module, split: str, limit: int | None) -> torch.Tensor:
        """int [n]: how many classes score above the right one."""
        images = self.images[split]
        ranks = []
        network.eval()
        for start in range(0, min(limit or len(images.labels), len(images.labels)), EVALUATED_AT_ONCE):
            end = min(start + EVALUATED_AT_ONCE, limit or len(images.labels))
            labels = images.labels[start:end]
            with lock.batch():
                logits = network(self.prepare(images.pixels[start:end]))
            better = (logits > logits.gather(1, labels[:, None])).sum(1)
            # Nothing compares with NaN: an image with such scores would rank as if it were right.
            ranks.append(torch.where(logits.isfinite().all(1), better, logits.shape[1]))
        return torch.cat(ranks)

    def calibration(self) -> Iterator[torch.Tensor]:
        """1,000 training images in four batches, not augmented."""
        for pixels in torch.split(self.images["train"].pixels[:1000], 250):
            yield self.prepare(pixels)


def augment(pixels: torch.Tensor, flip: bool, shift: int, random: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and move each by up to `shift` pixels, zeros coming in; uint8 [n, c, h, w] → the same.

    One gather for the whole batch: no workers, no Python loop over images.
    """
    n, channels, height, width = pixels.shape
    padded = functional.pad(pixels, (shift,) * 4) if shift else pixels
    columns = torch.arange(width).expand(n, width)
    if flip:
        mirrored = torch.rand(n, 1, generator=random) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    down, right = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=random)
    rows = (torch.arange(height) + down)[:, None, :, None]
    columns = (columns + right)[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None], rows, columns]


class _Progress:
    """What `fit` tells while it trains."""

    def __init__(
        self, task: Classification, network: nn.Module, report: Report, steps: int, epochs: float, rungs: int
    ) -> None:
        self.task, self.network, self.report = task, network, report
        self.steps, self.epochs = steps, epochs
        self.rungs = {round(steps * rung / rungs) for rung in range(1, rungs)}

    def step(self, done: int, loss: float) -> bool:
        """Report if it is time to; returns False when training should end."""
        row = {"epoch": self.epochs * done / self.steps, "train_loss": loss}
        if done in self.rungs:
            found = self.task.evaluate(self.network, "validation")
            self.network.train()
            return self.report(row | {f"val_{metric}": value for metric, value in found.items()})
        return self.report(row) if done % REPORT_EVERY == 0 or done == self.steps else True
