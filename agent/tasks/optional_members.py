"""What a task may have beyond `Task`; docs/task-reference.md is made from here."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from prunefleet.agent.tasks.task import Budget


class OptionalMembers(Protocol):
    """Members that are used where a task has them. None has to be there, and each stands for itself."""

    def dense_budget(self) -> Budget:
        """How the dense network is trained; 10 epochs without it. Give 0 epochs for a network that comes trained."""

    def recalibrate(self, network: nn.Module) -> None:
        """Re-estimate what pruning has shifted, in place, before the network is evaluated or fine-tuned.

        Without it the running statistics of batch norms become their plain average over `calibration()`.
        """

    def data_hash(self) -> str:
        """A word for the data, equal on all hosts that have the same and no others.

        `prunefleet plan` writes it into the sweep file, and a host whose word is another takes no trial. Without it
        the calibration batches are hashed, and nothing is written.
        """

    def task_hash(self) -> str:
        """A word for the code, for a class that has no source file, such as one typed into a notebook.

        Without it the source of the task's classes and the shapes of its network's tensors are hashed.
        """

    def correct(self, network: nn.Module, split: str) -> torch.Tensor:
        """Whether each example of a split is right, bool [n], where the first metric is the share of those that are.

        The answer's interval of that metric is then a paired bootstrap over examples.
        """

    def statistics(self, network: nn.Module, split: str, metric: str) -> torch.Tensor:
        """What single examples contribute to a metric, [n, k], for the intervals of metrics that are no such share.

        Intersections and unions, say, for a mean of quotients. With `value` where the metric is not the first mean.
        """

    def value(self, metric: str, means: torch.Tensor) -> torch.Tensor:
        """The metric, [...], as a fraction, of the means of its `statistics` over examples, [..., k]."""

    def resampled(
        self, network: nn.Module, split: str, metric: str
    ) -> tuple[int, Callable[[torch.Tensor], float]] | None:
        """How many examples a split has, and the metric of any of them by their numbers, int64 [n].

        For the interval of a metric that is no function of means, such as mean average precision. A number may come
        several times. The function is called 1,000 times; None for a metric that `statistics` or `correct` tells.
        """
