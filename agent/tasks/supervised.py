"""A task on inputs and targets in memory, with a network, a loss, a loop and metrics of the user's own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import nn

from prunefleet.agent.measure import lock
from prunefleet.agent.tasks.task import Budget, Report
from prunefleet.objective.errors import BadInput

Pair = tuple[torch.Tensor, torch.Tensor]
AT_ONCE = 100  # inputs evaluated together
SPLITS = ("train", "validation", "holdout", "test")


class Supervised(ABC):
    """To give: `name`, `metrics`, `network`, `splits`, `fit`, `figures`, and `value` where that is no mean."""

    name: str
    metrics: tuple[str, ...]

    @abstractmethod
    def network(self) -> nn.Module:
        """The dense network, freshly initialised or pretrained: the same on every call and every host."""

    @abstractmethod
    def splits(self) -> Mapping[str, Pair]:
        """Inputs [n, ...] and targets [n, ...] of "train", "validation", "holdout" and "test"; called once."""

    @abstractmethod
    def fit(self, network: nn.Module, budget: Budget, report: Report) -> None:
        """Train the network in place on `self.data["train"]`: see `Task.fit`."""

    @abstractmethod
    def figures(self, outputs: torch.Tensor, targets: torch.Tensor, metric: str) -> torch.Tensor:
        """[n, k]: what single examples contribute to a metric, such as whether each is right, as 0 or 1."""

    def value(self, metric: str, means: torch.Tensor) -> torch.Tensor:
        """The metric, a fraction, of the means of its figures over examples, [..., k] → [...]; the first one itself."""
        return means[..., 0]

    @cached_property
    def data(self) -> Mapping[str, Pair]:
        """The splits, made when first needed. Raises `BadInput` where one is missing, empty, or of unequal lengths."""
        found = self.splits()
        for split in SPLITS:
            if split not in found:
                raise BadInput("splits", sorted(found), f"give the split {split!r} too")
            inputs, targets = found[split]
            if len(inputs) != len(targets) or len(inputs) == 0:
                raise BadInput(f"splits.{split}", len(targets), f"give one target for each input: {len(inputs)}")
        return found

    def example_input(self) -> torch.Tensor:
        """The first input of validation, [1, ...]."""
        return self.data["validation"][0][:1]

    def calibration(self) -> Iterator[torch.Tensor]:
        """The first 1,000 inputs of train in batches."""
        yield from torch.split(self.data["train"][0][:1000], AT_ONCE)

    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """Each metric on a split, on its first `limit` examples if given."""
        inputs, targets = (each[:limit] for each in self.data[split])
        outputs = self._outputs(network, inputs)
        means = {metric: self.figures(outputs, targets, metric).double().mean(0) for metric in self.metrics}
        return {metric: float(self.value(metric, each)) for metric, each in means.items()}

    def statistics(self, network: nn.Module, split: str, metric: str) -> torch.Tensor:
        """The figures of a metric on a split, [n, k]."""
        inputs, targets = self.data[split]
        return self.figures(self._outputs(network, inputs), targets, metric)

    @torch.no_grad()
    def _outputs(self, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        network.eval()
        parts = []
        for part in torch.split(inputs, AT_ONCE):
            with lock.batch():
                parts.append(network(part))
        return torch.cat(parts)


def cut(sizes: Mapping[str, int], inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Pair]:
    """Return examples in a random order as splits of these sizes, one after the other.

    Raises `BadInput` where there are not as many inputs or targets as the sizes say.
    """
    total = sum(sizes.values())
    for name, each in (("inputs", inputs), ("targets", targets)):
        if len(each) != total:
            raise BadInput(
                f"sizes of {name}", dict(sizes), f"make them {len(each)} in all, as many as there are {name}"
            )
    parts = (torch.split(each, list(sizes.values())) for each in (inputs, targets))
    return dict(zip(sizes, zip(*parts, strict=True), strict=True))
