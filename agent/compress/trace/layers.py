"""Operations that compute channels from channels: convolutions, products of matrices, norms."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.trace.atoms import NONE, thin, varies
from prunefleet.agent.compress.trace.pointwise import combined, met, reduced
from prunefleet.agent.compress.trace.trace_state import Origin, Side, Site, TraceState

aten = torch.ops.aten


def convolution(state: TraceState, func: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """[n, channels, ...] → [n, outputs, ...]: every part of the channels is read by the filters of its own group."""
    image, weight, groups = args[0], args[1], args[8]
    atoms, shape = state.of(image), [1, -1] + [1] * (image.ndim - 2)
    width, count = image.shape[1], out.shape[1]
    if not varies(atoms, 1) and any(varies(atoms, dim) for dim in range(2, image.ndim)):
        state.pin(atoms, f"{state.module or 'a convolution'} computes along the dimension of its channels")
        atoms = torch.zeros((), dtype=torch.int64).expand(image.shape)
    read = state.along(atoms, 1)
    origin = state.origin(weight)
    layer, plain = _layer(state, origin, 0)
    if 1 < groups == width == count:
        made = _depthwise(state, layer, plain, origin, read)
    elif layer is None or not plain:
        made = _by_strange_weights(state, origin, read, count)
    else:
        read = state.meet(Side(layer, False), read)
        made = state.rows(layer, count)
        if 1 < groups in (width, count):
            state.ties.append(
                (_each(read, width // groups, count // groups), _each(made, count // groups, width // groups))
            )
        elif groups > 1:
            _equal_parts(state, read, groups)
            _equal_parts(state, made, groups)
    _site(state, "convolution", layer, (read.reshape(shape),), made.reshape(shape), True)
    state.set(out, made.reshape(shape))


def _depthwise(
    state: TraceState, layer: str | None, plain: bool, origin: Origin | None, read: torch.Tensor
) -> torch.Tensor:
    """One filter for each channel: what comes out is the same channel."""
    if plain and layer is not None:
        return state.meet(Side(layer, True), read)
    if origin is not None and len(origin.shape) and origin.shape[0] == len(read):
        state.atoms.meet(state.bare_along(origin, 0), read)
    return read


def _layer(state: TraceState, origin: Origin | None, dim: int) -> tuple[str | None, bool]:
    """The layer whose weights these are, and whether they are used as they are."""
    if origin is None:
        return None, False
    owner = state.owner(origin.name)
    return owner or origin.name, owner is not None


def _each(atoms: torch.Tensor, own: int, others: int) -> torch.Tensor:
    """Parts of `own` atoms, each atom as often as the other side has atoms in a part; one of the two is 1."""
    return atoms if own > 1 else atoms.repeat_interleave(others)


def _by_strange_weights(state: TraceState, origin: Origin | None, read: torch.Tensor, count: int) -> torch.Tensor:
    """Weights that are computed, or belong to no layer: what reads stays whole, and so does what it writes."""
    what = f"the weights {origin.name}, which belong to no layer" if origin else "weights that are computed"
    state.pin(read, f"its channels are read by {what} (in {state.module or 'the network'})")
    return state.atoms.new(count, "it is written by " + what)


def _equal_parts(state: TraceState, atoms: torch.Tensor, groups: int) -> None:
    """The i-th channels of all parts go together."""
    parts = atoms.reshape(groups, -1)
    state.ties.append((parts[:1].expand_as(parts).flatten(), parts.flatten()))


def product(state: TraceState, func: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """[..., k] by [k, m], or a batch of such: linear layers, and the products inside attention."""
    packet = func.overloadpacket
    if packet in (aten.addmm, aten.baddbmm):
        bias, (one, other) = args[0], args[1:3]
    else:
        bias, (one, other) = None, args[:2]
    origin = state.origin(other)
    if origin is None and state.origin(one) is None:
        _inner(state, one, other, out)
    elif origin is not None and other.ndim == 2 and one.ndim == 2:
        _linear(state, state.of(one), other, origin, out)
    elif origin is not None and other.ndim == 3 and other.stride(0) == 0:  # the same for a whole batch
        index = tuple(each[0] for each in origin.index)
        atoms = state.of(one).reshape(-1, one.shape[-1])
        _linear(state, atoms, other[0], Origin(origin.name, origin.shape, index), out)
    else:
        _strange_product(state, one, other, out)
    if isinstance(bias, torch.Tensor) and packet is aten.baddbmm:
        state.set(out, combined(state, [out, bias], out))


def _linear(state: TraceState, atoms: torch.Tensor, weight: torch.Tensor, origin: Origin, out: torch.Tensor) -> None:
    """Atoms [n, k] of what is read, weights [k, m]."""
    layer = state.owner(origin.name)
    plain = layer is not None and len(origin.index) == 2
    if plain:
        rows, columns = origin.index[0][0], origin.index[1][:, 0]
        plain = not varies(origin.index[0], 0) and not varies(origin.index[1], 1)
    if varies(atoms, 0) and not varies(atoms, 1):
        _other_axis(state, layer, atoms, out)
        return
    read = state.along(atoms, 1)
    if not plain:
        made = _by_strange_weights(state, origin, read, weight.shape[1])
    else:
        assert layer is not None
        whole = torch.zeros(origin.shape[1], dtype=torch.int64)
        whole[columns] = read
        read = state.meet(Side(layer, False), whole)[columns]
        made = state.rows(layer, origin.shape[0])[rows]
    _site(state, "product", layer, (read[None],), made[None], True)
    state.set(out, made[None])


def _other_axis(state: TraceState, layer: str | None, atoms: torch.Tensor, out: torch.Tensor) -> None:
    """A linear layer along another dimension than that of the channels: they pass, and it stays whole."""
    if layer is not None:
        state.unknown[layer] = "it computes along another dimension than that of the channels"
    lines = thin(atoms)[:, :1].reshape([*out.shape[:-1], 1])
    _site(state, "product", layer, (lines,), lines, True)
    state.set(out, lines)


def _strange_product(state: TraceState, one: torch.Tensor, other: torch.Tensor, out: torch.Tensor) -> None:
    where = state.module or "the network"
    for each in (one, other):
        state.pin(state.of(each), f"its channels pass through a product with weights (in {where})")
    _site(state, "product", None, (), torch.zeros(()), False)
    state.set(out, torch.zeros((), dtype=torch.int64))


def _inner(state: TraceState, one: torch.Tensor, other: torch.Tensor, out: torch.Tensor) -> None:
    """[b, n, k] by [b, k, m]: the product of values, summed over k."""
    left, right = state.of(one)[..., None], state.of(other)[..., None, :, :]
    left, right = thin(left), thin(right)
    shape = (*one.shape, other.shape[-1])
    last = len(shape) - 1
    pairs = met(state, left, {last}, right, {last - 2})
    made, statistic = reduced(state, pairs, [len(shape) - 2], keepdim=False, shape=shape)
    given = (thin(state.of(one)), thin(state.of(other)))
    _site(state, "product", None, given, made, statistic, statistic)
    state.set(out, made)


def batch_norm(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A norm of each channel by itself, [n, channels, ...]."""
    atoms = state.of(args[0])
    for tensor in args[1:5]:
        _met_by(state, tensor, atoms, 1)
    state.set(out[0], atoms)


def layer_norm(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A norm over the last dimensions."""
    image, shape, *parameters = args[:4]
    atoms, dims = state.of(image), len(shape)
    for dim in range(dims):
        if varies(atoms, image.ndim - dims + dim):
            for tensor in parameters:
                _met_by(state, tensor, atoms, image.ndim - dims + dim, dim)
            _met_by_module(state, atoms, image.ndim - dims + dim, dim)
    statistic = any(varies(atoms, image.ndim - dims + dim) for dim in range(dims))
    _site(state, "norm", _name(state, parameters), (thin(atoms),), thin(atoms), statistic, statistic)
    state.set(out[0], atoms)


def group_norm(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A norm over parts of the channels, [n, channels, ...]; with as many parts as channels, of each by itself."""
    image, weight, bias, *_, groups = args[:7]
    atoms = state.of(image)
    for tensor in (weight, bias):
        _met_by(state, tensor, atoms, 1)
    _met_by_module(state, atoms, 1)
    channels = image.shape[1]
    if 1 < groups < channels:
        _equal_parts(state, state.along(atoms, 1), groups)
    statistic = groups < channels and varies(atoms, 1)
    _site(state, "norm", _name(state, [weight, bias]), (thin(atoms),), thin(atoms), statistic, statistic)
    state.set(out[0], atoms)


def _met_by_module(state: TraceState, atoms: torch.Tensor, dim: int, part: int = 0) -> None:
    """A norm without parameters knows its width all the same."""
    module = state.names.get(state.module)
    if isinstance(module, nn.LayerNorm | nn.GroupNorm) and getattr(module, "weight", None) is None:
        state.meet(Side(state.module, True, part), state.along(atoms, dim))


def _met_by(state: TraceState, tensor: Any, atoms: torch.Tensor, dim: int, part: int = 0) -> None:
    """A norm's own parameter meets the channels that it scales."""
    origin = state.origin(tensor)
    if origin is None:
        return
    owner, line = state.owner(origin.name), state.along(atoms, dim)
    if owner is not None and len(origin.shape) == 1 and len(line) == tensor.numel():
        where = origin.index[0].flatten()
        whole = torch.zeros(origin.shape, dtype=torch.int64)
        whole[where] = line
        for low in range(0, len(line), origin.shape[0]):
            state.atoms.meet(whole[where[low : low + origin.shape[0]]], line[low : low + origin.shape[0]])
        state.meet(Side(owner, True), whole)
    elif owner is not None and len(origin.shape) > 1:
        state.meet(Side(owner, True, part), line)
    elif tensor.ndim == 1:
        state.atoms.meet(state.of(tensor), line)
    else:
        state.pin(line, f"its channels meet {origin.name}")


def _name(state: TraceState, parameters: Sequence[Any]) -> str | None:
    origin = next((found for each in parameters if (found := state.origin(each))), None)
    return origin.name.rpartition(".")[0] if origin else None


def _site(
    state: TraceState,
    kind: str,
    layer: str | None,
    given: tuple[torch.Tensor, ...],
    made: torch.Tensor,
    forced: bool,
    statistic: bool = False,
) -> None:
    state.sites.append(Site(kind, layer or state.module, given, made, forced, statistic))


def gated(state: TraceState, func: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """A gated linear unit: the values of one half are multiplied by those of the other."""
    atoms = state.of(args[0])
    dim = (args[1] if len(args) > 1 else -1) % atoms.ndim
    half = atoms.shape[dim] // 2
    one, other = atoms.narrow(dim, 0, half), atoms.narrow(dim, half, half)
    state.atoms.meet(one.contiguous(), other.contiguous())
    state.set(out, torch.where(one == NONE, other, one))
