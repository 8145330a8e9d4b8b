"""Operations that move values or take some of them: atoms move in the same way."""

from typing import Any

import torch
from torch.utils._pytree import tree_map

from prunefleet.agent.compress.cut import permutes
from prunefleet.agent.compress.trace.atoms import thin, varies
from prunefleet.agent.compress.trace.trace_state import Division, Origin, Side, TraceState

aten = torch.ops.aten
MOVES = frozenset(
    {
        aten.cat, aten.stack, aten.flip, aten.roll, aten.index, aten.index_select, aten.gather, aten.take_along_dim,
        aten.constant_pad_nd, aten.clone, aten._to_copy, aten.repeat, aten._unsafe_view, aten._reshape_alias,
        aten.reshape, aten.slice_scatter, aten.select_scatter, aten.slice_backward, aten.channel_shuffle,
        aten.native_channel_shuffle, aten.pixel_shuffle, aten.pixel_unshuffle, aten.im2col, aten.rot90, aten.lift_fresh,
        aten.unfold_copy, aten.tril, aten.triu, aten.contiguous, aten.detach, aten.lift, aten.index_put,
    }
)  # fmt: skip
VIEWS = frozenset({aten.view, aten._unsafe_view, aten._reshape_alias, aten.reshape, aten.unflatten})
PARTS = frozenset({aten.split, aten.split_with_sizes, aten.slice, aten.narrow})


def moves(func: Any) -> bool:
    """Return whether an operation only moves values."""
    return bool(func.is_view) or func.overloadpacket in MOVES


def moved(state: TraceState, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Follow an operation that moves values."""
    origin = state.origin(args[0]) if args else None
    if origin is not None and isinstance(out, torch.Tensor) and not isinstance(args[0], list):
        index = tuple(_replayed(func, [each, *args[1:]], kwargs) for each in origin.index)
        state.set_origin(out, Origin(origin.name, origin.shape, index))
        return
    given = tree_map(lambda each: state.of(each) if _counts(each) else each, args)
    found = _replayed(func, list(given), kwargs)
    _store(state, out, found)
    _note(state, func, args, given, out)


def _counts(value: object) -> bool:
    """Whether it is a tensor of values, not one of indices."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _replayed(func: Any, args: list[Any], kwargs: Any) -> Any:
    """The operation on atoms."""
    packet = func.overloadpacket
    if packet in VIEWS:
        return args[0].reshape(args[1])
    if packet is aten._to_copy:
        return args[0]
    if packet is aten.clone:
        return args[0]
    if packet is aten.constant_pad_nd:
        args = args[:2]  # the padding belongs to no channel, whatever its value
    kwargs = {name: value for name, value in (kwargs or {}).items() if name not in ("memory_format", "dtype")}
    try:
        return func(*args, **kwargs)
    except (RuntimeError, NotImplementedError):
        doubled = tree_map(lambda each: each.double() if _atoms_like(each) else each, args)
        return tree_map(lambda each: each.long() if isinstance(each, torch.Tensor) else each, func(*doubled, **kwargs))


def _atoms_like(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64


def _store(state: TraceState, out: Any, found: Any) -> None:
    """Note the atoms of one output or of several."""
    if isinstance(out, torch.Tensor):
        state.set(out, found)
    else:
        for each, atoms in zip(out, found, strict=True):
            state.set(each, atoms)


def _note(state: TraceState, func: Any, args: Any, given: Any, out: Any) -> None:
    """Note where channels are divided, and lengths that the code may have spelled out."""
    packet = func.overloadpacket
    if packet in VIEWS:
        _note_view(state, given[0], tuple(args[0].shape), tuple(out.shape))
    elif packet in PARTS or packet is aten.unbind or packet is aten.select:
        _note_parts(state, func, given[0], args, out)
    elif packet in (aten.channel_shuffle, aten.native_channel_shuffle):
        atoms = state.along(given[0], 1)
        state.divisions.append(Division(atoms.reshape(args[1], -1), state.module, likely=1))
    elif packet is aten.pixel_shuffle:
        parts = state.along(given[0], given[0].ndim - 3).reshape(-1, args[1] ** 2)
        state.divisions.append(Division(parts, state.module, likely=0))
    elif packet is aten.roll:
        dims = (args[2] if len(args) > 2 else None) or range(given[0].ndim)
        if any(varies(given[0], dim) for dim in dims):  # not along the rows of a picture alone
            state.rolled.append(thin(given[0]).flatten())
    elif packet in (aten.expand, aten.index, aten.index_select, aten.constant_pad_nd):
        _touch(state, given[0])
        _note_permutation(state, func, args, out)


def _note_permutation(state: TraceState, func: Any, args: Any, out: Any) -> None:
    """A tensor of the network's own that says in which order channels are taken gets shorter with them."""
    if func.overloadpacket is aten.index:
        chosen = [(dim, each) for dim, each in enumerate(args[1]) if each is not None]
    elif func.overloadpacket is aten.index_select:
        chosen = [(args[1], args[2])]
    else:
        return
    if len(chosen) != 1:
        return
    dim, index = chosen[0]
    origin, atoms = state.origin(index), state.of(out)
    if origin and index.ndim == 1 and permutes(index) and varies(atoms, dim):
        state.meet(Side(origin.name, True), state.along(atoms, dim))


def _note_view(state: TraceState, atoms: torch.Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    seen = atoms.reshape(after)
    _touch(state, atoms)
    _touch(state, seen)
    for dims in _blocks(before, after):
        varying = [dim for dim in dims if varies(seen, dim)]
        if len(varying) > 1:
            rest = [dim for dim in range(len(after)) if dim not in varying]
            block = thin(seen).permute(*varying, *rest)
            full = [after[dim] for dim in varying] + [block.shape[len(varying) + at] for at in range(len(rest))]
            block = block.expand(full).flatten(len(varying)) if rest else block.expand(full)
            for each in torch.unbind(block, -1) if rest else (block,):
                state.divisions.append(Division(each.contiguous(), state.module))


def _touch(state: TraceState, atoms: torch.Tensor) -> None:
    """Note channels whose number the code of the module may have spelled out."""
    small = thin(atoms)
    if small.numel() > 1:
        state.touched.append((state.module, small))


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[list[int]]:
    """The dimensions after a view, put together so that each block holds the values of some dimensions before it."""
    blocks: list[list[int]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        one, other, block = 1, 1, list[int]()
        if i < len(before):
            one, i = before[i], i + 1
        if j < len(after):
            other, block, j = after[j], [j], j + 1
        while one != other and (i < len(before) or j < len(after)):
            if one < other and i < len(before):
                one, i = one * before[i], i + 1
            elif j < len(after):
                other, j = other * after[j], j + 1
                block.append(j - 1)
            else:
                one, i = one * before[i], i + 1
        blocks.append(block)
    return blocks


def _note_parts(state: TraceState, func: Any, atoms: torch.Tensor, args: Any, out: Any) -> None:
    """Parts of a dimension: where all are alike, the i-th channels of each go together."""
    dim = next((at for at in range(atoms.ndim) if _shortened(args[0], out, at) and varies(atoms, at)), None)
    if dim is None:
        return
    whole = args[0].shape[dim]
    pieces = [out] if isinstance(out, torch.Tensor) else list(out)
    if pieces[0].ndim < atoms.ndim:
        return  # one index of a dimension that the code counts on: the view before has said so
    lengths = {each.shape[dim] for each in pieces}
    length = min(lengths)
    _touch(state, atoms)
    for piece in pieces:
        _touch(state, thin(atoms).narrow(dim, 0, min(piece.shape[dim], thin(atoms).shape[dim])))
    line = thin(atoms).movedim(dim, 0).reshape(whole, -1)
    even = len(lengths) == 1 and length and whole % length == 0
    step = args[4] if func.overloadpacket is aten.slice and len(args) > 4 else 1
    for column in torch.unbind(line, 1):
        if step > 1 and whole % step == 0:
            state.divisions.append(Division(column.reshape(-1, step), state.module, likely=0))
        elif not even:
            state.divisions.append(Division(column[None], state.module, uneven=True))
        elif length < whole:
            state.divisions.append(Division(column.reshape(-1, length), state.module, likely=1))


def _shortened(given: torch.Tensor, out: Any, dim: int) -> bool:
    first = out if isinstance(out, torch.Tensor) else out[0]
    return first.ndim < given.ndim or first.shape[dim] != given.shape[dim]
