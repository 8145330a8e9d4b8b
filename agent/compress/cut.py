"""Layers cut down to some of their channels, and the weights that belong to a channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Convolution = nn.modules.conv._ConvNd
BatchNorm = nn.modules.batchnorm._NormBase
"""Batch and instance norms."""


@dataclass(frozen=True)
class Slot:
    """Channels of one side of a layer (or of a bare parameter's dimension `dim`) that follow a group's root channels.

    `channels[i]` goes when root channel number `roots[i]` goes. `out` is true for outputs, and for layers whose outputs
    are their inputs' channels, such as norms.
    """

    layer: str
    out: bool
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    dim: int = 0

    def removed(self, roots: set[int]) -> set[int]:
        """The layer's channels that go with these root channels."""
        return {channel for channel, root in zip(self.channels, self.roots, strict=True) if root in roots}


def dense(layer: object) -> bool:
    """Whether the layer is a convolution or linear layer whose outputs are its own: not depthwise."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, Convolution) and not depthwise(layer))


def depthwise(layer: object) -> bool:
    """Whether the layer is a convolution with one filter per channel."""
    return isinstance(layer, Convolution) and 1 < layer.groups == layer.out_channels == layer.in_channels


def parts(layer: object, out: bool) -> tuple[int, int]:
    """Channels of that side of the layer, and the number of equal parts that it divides them into; 1 for most."""
    if isinstance(layer, Convolution) and not depthwise(layer):
        return (layer.out_channels if out else layer.in_channels), layer.groups
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, layer.num_groups
    return 0, 1


def can_cut(layer: object, out: bool) -> bool:
    """Whether `cut` knows the layer on that side."""
    if isinstance(layer, Convolution):
        # With one input or one output per group, but not both, the groups themselves would have to go.
        return depthwise(layer) or layer.groups == 1 or layer.groups not in (layer.in_channels, layer.out_channels)
    return isinstance(layer, nn.Linear | BatchNorm | nn.GroupNorm | nn.LayerNorm | nn.PReLU | nn.Parameter)


def width(layer: nn.Module | nn.Parameter, out: bool, dim: int = 0) -> int:
    """Channels of that side of the layer."""
    match layer:
        case nn.Parameter():
            return layer.shape[dim]
        case nn.Linear():
            return layer.out_features if out else layer.in_features
        case Convolution():
            return layer.out_channels if out else layer.in_channels
        case nn.GroupNorm():
            return layer.num_channels
        case nn.LayerNorm():
            return layer.normalized_shape[-1]
        case nn.PReLU():
            return layer.num_parameters
        case _:
            return int(layer.num_features)  # type: ignore[arg-type]


def cut(network: nn.Module, slot: Slot, keep: Sequence[int]) -> None:
    """Leave the layer of `slot` only the channels `keep`, ascending, on the slot's side."""
    layer = find(network, slot.layer)
    index = torch.tensor(keep, dtype=torch.long)
    match layer:
        case nn.Parameter():
            owner, _, name = slot.layer.rpartition(".")
            setattr(network.get_submodule(owner), name, _chosen(layer, slot.dim, index))
        case nn.Linear():
            _cut_weight(layer, 0 if slot.out else 1, index, bias=slot.out)
            setattr(layer, "out_features" if slot.out else "in_features", len(index))
        case Convolution():
            _cut_convolution(layer, slot.out, index)
        case nn.GroupNorm():
            _cut_weight(layer, 0, index)
            layer.num_channels = len(index)
        case nn.LayerNorm():
            _cut_weight(layer, len(layer.normalized_shape) - 1, index)
            layer.normalized_shape = (*layer.normalized_shape[:-1], len(index))
        case nn.PReLU():
            _cut_weight(layer, 0, index)
            layer.num_parameters = len(index)
        case BatchNorm():
            _cut_norm(layer, index)


def find(network: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """The module or parameter of that name."""
    owner, _, last = name.rpartition(".")
    found: nn.Module | nn.Parameter = getattr(network.get_submodule(owner), last) if name else network
    return found


def _cut_convolution(layer: Convolution, out: bool, index: torch.Tensor) -> None:
    if depthwise(layer):
        _cut_weight(layer, 0, index)
        layer.in_channels = layer.out_channels = layer.groups = len(index)
        return
    local = index[: len(index) // layer.groups]  # equal parts lose the same channels
    if layer.transposed:  # [in, out / groups, ...]
        _cut_weight(layer, 1 if out else 0, local if out else index, bias=False)
    else:  # [out, in / groups, ...]
        _cut_weight(layer, 0 if out else 1, index if out else local, bias=False)
    if out and layer.bias is not None:
        layer.bias = _chosen(layer.bias, 0, index)
    setattr(layer, "out_channels" if out else "in_channels", len(index))


def _cut_norm(layer: nn.Module, index: torch.Tensor) -> None:
    _cut_weight(layer, 0, index)
    for name in ("running_mean", "running_var"):
        statistic = getattr(layer, name)
        if statistic is not None:
            setattr(layer, name, statistic[index])
    layer.num_features = len(index)  # type: ignore[assignment]


def _cut_weight(layer: nn.Module, dim: int, index: torch.Tensor, bias: bool = True) -> None:
    for name in ("weight", "bias") if bias else ("weight",):
        parameter = getattr(layer, name, None)
        if parameter is not None:
            setattr(layer, name, _chosen(parameter, min(dim, parameter.ndim - 1), index))


def _chosen(parameter: torch.Tensor, dim: int, index: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(dim, index.to(parameter.device)), parameter.requires_grad)


def rows(layer: nn.Module, values: torch.Tensor, slot: Slot) -> torch.Tensor:
    """Those of a layer's weights, or of `values` in their shape, that belong to the slot's channels: [channels, n]."""
    if isinstance(layer, Convolution | nn.Linear) and not depthwise(layer):
        groups, transposed = (layer.groups, layer.transposed) if isinstance(layer, Convolution) else (1, False)
        if slot.out == transposed:  # the channels are the second dimension, of each part by itself
            values = values.reshape(groups, -1, *values.shape[1:]).transpose(1, 2).flatten(0, 1)
    return values[list(slot.channels)].flatten(1) if values.ndim > 1 else values[list(slot.channels), None]
