"""Weights into networks, from files that hold tensors alone."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn


def load_weights(network: nn.Module, tensors: Mapping[str, torch.Tensor], strict: bool = True) -> None:
    """Load tensors by name as a state that this very network has written. Raises `RuntimeError` as torch does.

    torch notes the version of each module in what it pickles, and some modules (torchvision's MNASNet) refuse a state
    without it; safetensors has no room for that.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)
