"""What a device answers, as a torch network: a task then evaluates the deployed model like the trained one."""

import torch
from torch import nn

from prunefleet.agent.measure.runners.base import LoadedNetwork


class Deployed(nn.Module):
    """A loaded network that takes batches of any size and runs them on its device, one fixed input at a time.

    For evaluation only: it has no weights of its own and no gradients, and gives the first output.
    """

    def __init__(self, loaded: LoadedNetwork, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self._loaded, self._shape = loaded, input_shape

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, ...] → the first output of each, [n, ...]; n a multiple of the input's own first dimension."""
        parts = torch.split(batch, self._shape[0])
        return torch.cat([torch.from_numpy(self._loaded.infer(part.numpy())) for part in parts])
