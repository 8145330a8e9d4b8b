"""Layers cut down to some of their channels, and the weights that belong to a channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Convolution = nn.modules.conv._ConvNd
BatchNorm = nn.modules.batchnorm._NormBase
"""Batch and instance norms."""
OWNERS = (Convolution, nn.Linear, BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
"""Layers whose parameters are cut together."""
READ_ONLY = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Layers whose inputs alone can be cut, if at all."""


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
    if isinstance(layer, nn.RNNBase):
        return not out
    return isinstance(layer, (torch.Tensor, *OWNERS))


def by_groups(layer: object) -> bool:
    """Return whether a convolution's groups have one input or one output each: channels then go with their groups."""
    if not isinstance(layer, Convolution) or depthwise(layer):
        return False
    return 1 < layer.groups in (layer.in_channels, layer.out_channels)


def width(layer: nn.Module | torch.Tensor, out: bool, dim: int = 0) -> int:
    """Channels of that side of the layer."""
    match layer:
        case torch.Tensor():
            return layer.shape[dim]
        case nn.RNNBase():
            return layer.input_size
        case nn.Linear():
            return layer.out_features if out else layer.in_features
        case Convolution():
            return layer.out_channels if out else layer.in_channels
        case nn.GroupNorm():
            return layer.num_channels
        case nn.LayerNorm():
            return layer.normalized_shape[dim]
        case nn.PReLU():
            return layer.num_parameters
        case _:
            return int(layer.num_features)  # type: ignore[arg-type]


def cut(network: nn.Module, slot: Slot, keep: Sequence[int], whole_groups: bool = False) -> None:
    """Leave the layer of `slot` only the channels `keep`, in this order, on the slot's side.

    `whole_groups`: whether a convolution loses groups, as `by_groups` says of it before any of it is cut.
    """
    layer = find(network, slot.layer)
    index = torch.tensor(keep, dtype=torch.long)
    match layer:
        case torch.Tensor():
            _cut_bare(network, slot, layer, index)
        case nn.RNNBase():
            _cut_recurrent(layer, index)
        case nn.Linear():
            _cut_weight(layer, 0 if slot.out else 1, index, bias=slot.out)
            setattr(layer, "out_features" if slot.out else "in_features", len(index))
        case Convolution():
            _cut_convolution(layer, slot.out, index, whole_groups)
        case nn.GroupNorm():
            _cut_weight(layer, 0, index)
            if layer.num_groups == layer.num_channels:
                layer.num_groups = len(index)
            layer.num_channels = len(index)
        case nn.LayerNorm():
            _cut_weight(layer, slot.dim, index)
            layer.normalized_shape = _with(layer.normalized_shape, slot.dim, len(index))
        case nn.PReLU():
            _cut_weight(layer, 0, index)
            layer.num_parameters = len(index)
        case BatchNorm():
            _cut_norm(layer, index)


def _with(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _cut_bare(network: nn.Module, slot: Slot, tensor: torch.Tensor, index: torch.Tensor) -> None:
    """A parameter or buffer that belongs to no layer known here; its owner may know the width as a shape."""
    path, _, name = slot.layer.rpartition(".")
    owner, before = network.get_submodule(path), tensor.shape[slot.dim]
    chosen = tensor.detach().index_select(slot.dim, index.to(tensor.device))
    if permutes(tensor):  # of what is left, by number
        chosen = chosen.argsort().argsort()
    is_parameter = isinstance(tensor, nn.Parameter)
    setattr(owner, name, nn.Parameter(chosen, tensor.requires_grad) if is_parameter else chosen)
    shape = getattr(owner, "normalized_shape", None)
    if isinstance(shape, tuple) and len(shape) > slot.dim and shape[slot.dim] == before:
        owner.normalized_shape = _with(shape, slot.dim, len(index))  # type: ignore[assignment]


def permutes(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds the numbers from 0 on, each once: the order in which channels are taken."""
    whole = tensor.ndim == 1 and not tensor.is_floating_point() and not tensor.is_complex()
    return whole and tensor.dtype != torch.bool and tensor.sort().values.tolist() == list(range(len(tensor)))


def _cut_recurrent(layer: nn.RNNBase, index: torch.Tensor) -> None:
    """Leave a recurrent layer the inputs `index`; its hidden state stays whole."""
    for end in ("", "_reverse") if layer.bidirectional else ("",):
        name = f"weight_ih_l0{end}"
        setattr(layer, name, _chosen(layer.get_parameter(name), 1, index))
    layer.input_size = len(index)
    layer.flatten_parameters()


def find(network: nn.Module, name: str) -> nn.Module | torch.Tensor:
    """The module, parameter or buffer of that name."""
    owner, _, last = name.rpartition(".")
    found: nn.Module | torch.Tensor = getattr(network.get_submodule(owner), last) if name else network
    return found


def _cut_convolution(layer: Convolution, out: bool, index: torch.Tensor, whole_groups: bool) -> None:
    if depthwise(layer):
        _cut_weight(layer, 0, index)
        layer.in_channels = layer.out_channels = layer.groups = len(index)
        return
    if whole_groups:
        _cut_groups(layer, out, index)
        return
    local = index[: len(index) // layer.groups]  # equal parts lose the same channels
    if layer.transposed:  # [in, out / groups, ...]
        _cut_weight(layer, 1 if out else 0, local if out else index, bias=False)
    else:  # [out, in / groups, ...]
        _cut_weight(layer, 0 if out else 1, index if out else local, bias=False)
    if out and layer.bias is not None:
        layer.bias = _chosen(layer.bias, 0, index)
    setattr(layer, "out_channels" if out else "in_channels", len(index))


def _cut_groups(layer: Convolution, out: bool, index: torch.Tensor) -> None:
    """One side of a convolution that loses whole groups; the other side loses what belongs to them."""
    inputs_alone = layer.weight.shape[1] > 1  # of a group; transposed, its outputs
    if out != layer.transposed:
        _cut_weight(layer, 0, index, bias=False)
    if out and layer.bias is not None:
        layer.bias = _chosen(layer.bias, 0, index)
    setattr(layer, "out_channels" if out else "in_channels", len(index))
    if out == (inputs_alone != layer.transposed):
        layer.groups = len(index)


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
