"""What a device answers, as a torch network: a task then evaluates the deployed model like the trained one."""

from typing import Any

import torch
from torch import nn

from prunefleet.agent.measure.outputs import Outputs
from prunefleet.agent.measure.runners.base import LoadedNetwork


class Deployed(nn.Module):
    """A loaded network that takes batches of any size and runs them on its device, one fixed input at a time.

    For evaluation only: it has no weights of its own and no gradients. What it returns is what torch returns: the same
    containers, names and types, as `outputs` has them recorded of the network; without them one tensor, [n, ...].
    """

    def __init__(self, loaded: LoadedNetwork, input_shape: tuple[int, ...], outputs: Outputs | None = None) -> None:
        super().__init__()
        self._loaded, self._shape, self._outputs = loaded, input_shape, outputs

    def __getattr__(self, name: str) -> Any:
        """Only what a module has of itself."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            told = f"the deployed network has no {name!r}: evaluate has its outputs alone at this precision"
            raise AttributeError(f"{told} (docs/task.md)") from None

    def forward(self, batch: torch.Tensor) -> Any:
        """[n, ...] → the output for each, joined; n a multiple of the input's own first dimension.

        Raises `BadInput` for several inputs where an output is a figure of the whole batch.
        """
        inputs = (part.float().cpu().numpy() for part in torch.split(batch.detach(), self._shape[0]))
        parts = [self._loaded.infer(part) for part in inputs]
        if self._outputs is None:
            return torch.cat([torch.from_numpy(part[0]).float() for part in parts])
        return self._outputs.joined(parts)
