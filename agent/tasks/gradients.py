"""Gradients of a task's own loss on its own training batches, for importance that needs them."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from prunefleet.agent.tasks.task import Budget, Task

BATCHES = 16
STANDSTILL = 1e-12
"""A learning rate at which weights stay where they are."""


def backward_of(task: Task, seed: int = 0, batches: int = BATCHES) -> Callable[[nn.Module], None]:
    """What runs some training batches forward and backward through a network: the task's own `fit`, standing still.

    Ends at the task's first report after that many batches, or after an epoch. Changes batch-norm statistics and leaves
    no gradients: give it a copy, with hooks on its parameters.
    """

    def run(network: nn.Module) -> None:
        seen: list[int] = []
        first = next(parameter for parameter in network.parameters() if parameter.requires_grad)
        counting = first.register_hook(lambda gradient: seen.append(1))  # type: ignore[no-untyped-call]

        def report(row: Mapping[str, float]) -> bool:
            return len(seen) < batches

        try:
            with torch.enable_grad():
                task.fit(network, Budget(epochs=1.0, lr=STANDSTILL, seed=seed), report)
        finally:
            counting.remove()

    return run
