"""Operations on values one by one, and those that put many into one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from prunefleet.agent.compress.trace.atoms import NONE, thin, varies
from prunefleet.agent.compress.trace.trace_state import Site, TraceState

aten = torch.ops.aten


def pointwise(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Values that meet at one place belong to one channel."""
    operands = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    if isinstance(out, torch.Tensor):
        state.set(out, combined(state, operands, out))


def combined(state: TraceState, operands: Sequence[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    """Return the atoms of what is computed of several tensors value by value."""
    found = torch.zeros([1] * out.ndim, dtype=torch.int64)
    spread: set[int] = set(range(out.ndim))
    for each in operands:
        if not state.known(each):
            continue
        atoms = thin(state.of(each))
        atoms = atoms.reshape([1] * (out.ndim - atoms.ndim) + list(atoms.shape))
        mine = _spread(each, out)
        found = met(state, found, spread, atoms, mine)
        spread &= mine
    return found


def _spread(tensor: torch.Tensor, out: torch.Tensor) -> set[int]:
    """The dimensions of the output along which a tensor repeats one value."""
    extra = out.ndim - tensor.ndim
    return set(range(extra)) | {
        dim + extra
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True))
        if out.shape[dim + extra] > 1 and (size == 1 or stride == 0)
    }


def met(
    state: TraceState, one: torch.Tensor, one_spread: set[int], other: torch.Tensor, other_spread: set[int]
) -> torch.Tensor:
    """Return the atoms of two tensors where they meet.

    One channel that is spread over many others, as a spatial attention's, joins none of them.
    """
    if _one_for_many(state, one, one_spread, other):
        return other
    if _one_for_many(state, other, other_spread, one):
        return one
    shape = (one + other).shape
    wide_one, wide_other = one.expand(shape), other.expand(shape)
    state.atoms.meet(wide_one, wide_other)
    return torch.where(wide_one == NONE, wide_other, wide_one)


def _one_for_many(state: TraceState, one: torch.Tensor, spread: set[int], many: torch.Tensor) -> bool:
    if not any(many.shape[dim] > 1 for dim in spread if dim < many.ndim):
        return False
    mine = set(state.atoms.classes(torch.unique(one)).tolist()) - {NONE}
    others = set(state.atoms.classes(torch.unique(many)).tolist()) - {NONE}
    if len(mine) == 1 and len(others) > 1:
        state.pin(one, "its one channel meets many channels of others")
        return True
    return False


def reduction(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """One value of many: their mean, their largest, their variance."""
    first = out if isinstance(out, torch.Tensor) else out[0]
    image = args[0]
    dims, keepdim = _dims(func, args, kwargs or {}, image.ndim)
    atoms = thin(state.of(image))
    made, statistic = reduced(state, atoms, dims, keepdim, tuple(image.shape))
    state.sites.append(Site("reduction", state.module, (atoms,), made, statistic, statistic))
    for each in (first,) if isinstance(out, torch.Tensor) else out:
        if each.shape == first.shape:
            state.set(each, made)


def _dims(func: Any, args: Any, kwargs: Any, ndim: int) -> tuple[list[int], bool]:
    """The dimensions that an operation reduces, and whether it keeps them."""
    names = [each.name for each in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    dim = given.get("dim", given.get("dims"))
    listed = range(ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return [each % ndim for each in listed], bool(given.get("keepdim", False))


def reduced(
    state: TraceState, atoms: torch.Tensor, dims: Sequence[int], keepdim: bool, shape: tuple[int, ...]
) -> tuple[torch.Tensor, bool]:
    """Return the atoms of what many values become, and whether these were all channels together.

    Where channels differ along the reduced dimensions, those that become one value are one. If that would make one of
    all of them, the value is a statistic of them, such as their mean, and belongs to none.
    """
    small = thin(atoms)
    mixing = [dim for dim in dims if small.shape[dim] > 1]
    statistic = False
    if mixing:
        small, statistic = _put_together(state, small, mixing)
    for dim in dims:
        small = small.narrow(dim, 0, 1)
    if not keepdim:
        small = small.reshape([size for dim, size in enumerate(small.shape) if dim not in dims])
    return small, statistic


def _put_together(state: TraceState, atoms: torch.Tensor, dims: Sequence[int]) -> tuple[torch.Tensor, bool]:
    trial, first = state.atoms.copy(), atoms.amax(tuple(dims), keepdim=True)
    wide = first.expand_as(atoms)
    before = set(trial.classes(torch.unique(atoms)).tolist()) - {NONE}
    trial.meet(wide, atoms)
    after = set(trial.classes(torch.unique(atoms)).tolist()) - {NONE}
    if len(after) < 2 <= len(before):
        return torch.zeros_like(first), True
    state.atoms.meet(wide, atoms)
    return first, False


def softmax(state: TraceState, func: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """Values divided by a sum over a dimension: they stay what they are, the sum is a statistic."""
    atoms = thin(state.of(args[0]))
    dim = args[1] % args[0].ndim
    statistic = varies(atoms, dim)
    state.sites.append(Site("softmax", state.module, (atoms,), atoms, statistic, statistic))
    state.set(out, atoms)


def spatial(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Operations on every channel by itself, [n, channels, ...]: pooling, resizing."""
    first = out if isinstance(out, torch.Tensor) else out[0]
    image = args[0]
    extra = image.ndim - _rank(func)
    atoms = state.of(image)
    for dim in range(extra, image.ndim):
        if varies(atoms, dim):
            state.pin(atoms, f"its channels lie along a dimension that {func.overloadpacket.__name__} works on")
    small = thin(atoms)
    for dim in range(extra, image.ndim):
        small = small.narrow(dim, 0, 1)
    for each in (first,) if isinstance(out, torch.Tensor) else out:
        if isinstance(each, torch.Tensor) and each.ndim == image.ndim:
            state.set(each, small)


def _rank(func: Any) -> int:
    """How many dimensions a pooling or resizing works on, by its name."""
    name = func.overloadpacket.__name__
    return 3 if "3d" in name else 1 if "1d" in name or "linear1d" in name else 2
