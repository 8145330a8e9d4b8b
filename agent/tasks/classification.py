"""Image classification: a network and labelled images are all that is left to give."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional

from prunefleet.agent.measure import lock
from prunefleet.agent.tasks.distill import DistilledLoss, SoftTargets
from prunefleet.agent.tasks.metrics import Metric, metric
from prunefleet.agent.tasks.task import Budget, Report
from prunefleet.agent.tasks.training import Batch, Schedule, fastest, located, train
from prunefleet.objective.errors import BadInput

EVALUATED_AT_ONCE = 500
PIXELS_AT_ONCE = 2**22  # fewer images at once where they are large: activations take many times the memory of these
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
    """A `Task` of classifying images; its `metrics` are among those of `prunefleet.agent.tasks.metrics`.

    A subclass gives `name`, `network` and `splits`, and changes what does not suit it below: `lr` is that of
    fine-tuning; `flip` and `flip_vertical` mirror half of the training images; `balanced` weighs classes in the loss as
    if all were equally frequent; `positive` is the class that recall, precision and f1 are about; `calibrated` images
    re-estimate batch-norm statistics.
    """

    name: str
    metrics: tuple[str, ...] = ("top1", "top5")
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    batch_size: int = 256
    lr: float = 0.05
    flip: bool = True
    flip_vertical: bool = False
    shift: int = 2
    rungs: int = 4
    balanced: bool = False
    positive: int = 1
    calibrated: int = 1000

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
        loss = DistilledLoss(targets, class_weights(train_images.labels) if self.balanced else None)
        batches = self.batches(train_images, budget.seed)
        how = fastest(self.name, network, next(batches), loss)
        schedule = Schedule(budget.lr or self.lr, steps)
        rungs = max(self.rungs, round(budget.epochs))
        progress = _Progress(self, network, report, steps, budget.epochs, rungs)
        try:
            train(network, batches, loss, schedule, progress.step, how)
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
                pixels = augment(images.pixels[chosen], self.flip, self.shift, random, self.flip_vertical)
                yield self.prepare(pixels), images.labels[chosen]

    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """Each metric on a split, on its first `limit` images if given; in float32."""
        wanted = self._wanted
        sums = {name: torch.zeros(()) for name in wanted}
        count = 0
        for logits, labels in self._outputs(network, split, limit):
            count += len(labels)
            for name, each in wanted.items():
                sums[name] = sums[name] + each.columns(logits, labels).double().sum(0)
        return {name: float(each.value(sums[name] / count)) for name, each in wanted.items()}

    def statistics(self, network: nn.Module, split: str, name: str) -> torch.Tensor:
        """[n, k]: what the metric `name` needs to know of each image of a split."""
        wanted = self._wanted[name]
        return torch.cat([wanted.columns(*batch) for batch in self._outputs(network, split, None)])

    def value(self, name: str, means: torch.Tensor) -> torch.Tensor:
        """The metric `name` of means over images, [..., k] → [...]."""
        return self._wanted[name].value(means)

    @property
    def _wanted(self) -> dict[str, Metric]:
        return {name: metric(name, self.positive) for name in self.metrics}

    @torch.no_grad()
    def _outputs(self, network: nn.Module, split: str, limit: int | None) -> Iterator[Batch]:
        """Logits and labels, batch by batch."""
        images = self.images[split]
        network.eval()
        device = located(network)
        end, step = min(limit or len(images.labels), len(images.labels)), at_once(images, EVALUATED_AT_ONCE)
        for start in range(0, end, step):
            rows = slice(start, min(start + step, end))
            with lock.batch():
                logits = network(self.prepare(images.pixels[rows]).to(device)).cpu()
            yield logits, images.labels[rows]

    def calibration(self) -> Iterator[torch.Tensor]:
        """The first `calibrated` training images in batches of at most 250, not augmented."""
        images = self.images["train"]
        for pixels in torch.split(images.pixels[: self.calibrated], at_once(images, 250)):
            yield self.prepare(pixels)


def at_once(images: Images, most: int) -> int:
    """How many of the images go through a network together without training: at most `most`."""
    return max(1, min(most, PIXELS_AT_ONCE // (images.pixels.shape[2] * images.pixels.shape[3])))


def class_weights(labels: torch.Tensor) -> torch.Tensor:
    """Weights of the classes [classes], inverse to how often each occurs among `labels`; 1 on average over images."""
    counts = labels.bincount().clamp(min=1)
    return len(labels) / (len(counts) * counts.float())


def augment(
    pixels: torch.Tensor, flip: bool, shift: int, random: torch.Generator, flip_vertical: bool = False
) -> torch.Tensor:
    """Mirror half of the images and move each by up to `shift` pixels, zeros coming in; uint8 [n, c, h, w] → the same.

    One gather for the whole batch: no workers, no Python loop over images.
    """
    n, channels, height, width = pixels.shape
    padded = functional.pad(pixels, (shift,) * 4) if shift else pixels
    columns, rows = torch.arange(width).expand(n, width), torch.arange(height).expand(n, height)
    if flip:
        columns = _mirrored(columns, random)
    if flip_vertical:
        rows = _mirrored(rows, random)
    down, right = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=random)
    rows = (rows + down)[:, None, :, None]
    columns = (columns + right)[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None], rows, columns]


def _mirrored(places: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """[n, size], half of the rows, by chance, in the other direction."""
    return torch.where(torch.rand(len(places), 1, generator=random) < 0.5, places.flip(1), places)


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
