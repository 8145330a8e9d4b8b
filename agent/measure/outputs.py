"""What a network returns: tensors in tuples, lists, dicts and named tuples, taken apart for a runner and put together.

A runner gives tensors in a row. How they stand in what torch returns, and how those of a batch's inputs belong
together, is recorded once, by running the network itself.
"""

import copy
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunefleet.objective.errors import BadInput

CONSTANTS = (type(None), bool, int, float, str, torch.dtype, torch.device)
"""What may stand beside tensors: it comes back as it was recorded."""
HALF = (torch.bfloat16, torch.float16)
CLOSE = 1e-3
"""Of the largest value: how exactly a batch gives what its inputs give alone."""
SEED = 20_261  # one that nobody draws an example with
SHOWN = 8  # outputs that a message names
TIES = 0.01
"""The share of integers and booleans that may differ where the export agrees: of two near values either is the larger.
"""
WRAP = (
    "wrap the network so that forward takes [n, c, h, w] and returns tensors whose first dimension is n, and select "
    "(nms, thresholds, top-k of varying length) in the task's evaluate: docs/task.md, What a network may return"
)


@dataclass(frozen=True)
class Place:
    """Stands in a structure for the tensor of that number."""

    number: int


@dataclass(frozen=True)
class Output:
    """A tensor that a network returns for one input.

    Args:
        name: the keys and places that lead to it, such as `boxes` or `0.scores`; `output` where it is all.
        shape: of one input.
        dtype: torch's.
        along: the dimension along which the tensors of a batch's inputs are joined; None where that is none.
        new: the dimension is a new one, as where the network squeezes a batch of one away.
        same: the tensor does not depend on the input, as anchors do not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    along: int | None = 0
    new: bool = False
    same: bool = False

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The tensor of a batch, of those of its inputs. Raises `BadInput` where these do not tell it."""
        if len(parts) == 1 or self.same:
            return parts[0].to(self.dtype)
        if self.along is None:
            raise BadInput(f"network output {self.name}", f"a batch of {len(parts)}", ONE_BY_ONE)
        join = torch.stack if self.new else torch.cat
        return join(list(parts), self.along).to(self.dtype)

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


ONE_BY_ONE = (
    "compute it in the task's evaluate, or evaluate one input at a time: a device runs inputs one by one, and this "
    "output is neither joined along a dimension nor the same for all of them"
)


@dataclass(frozen=True)
class Outputs:
    """What a network returns: its output with a `Place` for each tensor, and the tensors in order."""

    structure: object
    tensors: tuple[Output, ...]

    def joined(self, parts: Sequence[Sequence[NDArray[Any]]]) -> Any:
        """What the network returns for a batch, of the arrays that each of its inputs gave, in order."""
        columns = (list(map(torch.from_numpy, column)) for column in zip(*parts, strict=True))
        found = [each.joined(column) for each, column in zip(self.tensors, columns, strict=True)]
        leaves = (found[leaf.number] if isinstance(leaf, Place) else leaf for _, leaf in _leaves(self.structure))
        return _filled(self.structure, leaves)

    def __str__(self) -> str:
        more = f" and {len(self.tensors) - SHOWN} more" if len(self.tensors) > SHOWN else ""
        return ", ".join(map(str, self.tensors[:SHOWN])) + more


def tensors(returned: object) -> list[torch.Tensor]:
    """The tensors in what a network returned, in order; one that is returned twice is there twice."""
    return [leaf for _, leaf in _leaves(returned) if isinstance(leaf, torch.Tensor)]


def named(returned: object) -> list[tuple[str, torch.Tensor]]:
    """The tensors with their names: the keys and places that lead to each, with dots between."""
    return [(name or "output", leaf) for name, leaf in _leaves(returned) if isinstance(leaf, torch.Tensor)]


def arrays(returned: object) -> tuple[NDArray[Any], ...]:
    """The tensors as arrays in memory; half precision, which numpy has in part, as float32."""
    return tuple((each.float() if each.dtype in HALF else each).cpu().numpy() for each in tensors(returned))


def difference(got: NDArray[Any], expected: torch.Tensor) -> float:
    """How far an array is from a tensor: the largest error over the largest value expected, of floats.

    Of integers and booleans it is the share that differs beyond `TIES`. Not a number where either is not finite or
    shapes differ.
    """
    wanted = expected.detach().cpu()
    if got.shape != tuple(wanted.shape):
        return float("nan")
    if not got.size:
        return 0.0
    if not wanted.is_floating_point():
        return max(float((got != wanted.numpy()).mean()) - TIES, 0.0)
    error = np.abs(got.astype(np.float64) - wanted.double().numpy()).max()
    return float(error / max(float(wanted.abs().max()), 1e-12)) if np.isfinite(error) else float("nan")


class Flat(nn.Module):
    """A network whose output tensors stand in one tuple: what exporters take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[n, ...] → the tensors in order; floating ones as float32."""
        return tuple(each.float() if each.is_floating_point() else each for each in tensors(self.network(batch)))


def recorded(network: nn.Module, example_input: torch.Tensor) -> Outputs:
    """What `network` returns, found by running a copy in evaluation mode: on an input, on another, on both as a batch.

    `example_input`: [1, ...]. Raises `BadInput`, naming the output, for what no device gives: other things than tensors
    in tuples, lists and dicts; complex numbers; parts or shapes that change with an input's values; a part for each
    input.
    """
    copied = copy.deepcopy(network).eval()
    other = noise_like(example_input)
    with torch.no_grad():
        first = copied(example_input)
        _check(first)
        both = _of_two(copied, torch.cat((example_input, other)))
        if both is not None and _names(both) != _names(first):
            raise BadInput("network output", f"{_parts(first)} for one input, {_parts(both)} for two", WRAP)
        second = copied(other)
    _check_alike(first, second)
    if both is not None:
        _check_constants(first, both, "two")
    pairs = zip(named(first), tensors(second), tensors(both) if both is not None else tensors(first), strict=True)
    found = [
        _output(name, one, two, batch if both is not None else None, len(example_input))
        for (name, one), two, batch in pairs
    ]
    places = map(Place, range(len(found)))
    leaves = (next(places) if isinstance(leaf, torch.Tensor) else leaf for _, leaf in _leaves(first))
    return Outputs(_filled(first, leaves), tuple(found))


def _of_two(network: nn.Module, batch: torch.Tensor) -> object:
    """What it returns for a batch; None where it takes one input at a time: then shapes tell the first dimension."""
    try:
        found: object = network(batch)
    except Exception:  # whatever a network's own code raises of a batch that it does not take
        return None
    return found


def noise_like(example_input: torch.Tensor) -> torch.Tensor:
    """Another input than the example: noise, the same each time."""
    return torch.randn(example_input.shape, generator=torch.Generator().manual_seed(SEED))


def _output(name: str, one: torch.Tensor, two: torch.Tensor, both: torch.Tensor | None, inputs: int) -> Output:
    """An output, of its values for an input, for another one, and for both as a batch."""
    shape, kind = tuple(one.shape), one.dtype
    if both is None:
        along = 0 if shape[:1] == (inputs,) else None
        return Output(name, shape, kind, along, same=along is None and torch.equal(one, two))
    if both.shape == one.shape:
        return Output(name, shape, kind, None, same=torch.equal(one, two) and torch.equal(one, both))
    if both.ndim == one.ndim + 1 and both.shape[0] == 2 and _close(torch.stack((one, two)), both):
        return Output(name, shape, kind, 0, new=True)
    if both.ndim == one.ndim:
        grown = next(place for place in range(one.ndim) if both.shape[place] != shape[place])
        if both.shape[grown] == 2 * shape[grown] and _close(torch.cat((one, two), grown), both):
            return Output(name, shape, kind, grown)
    return Output(name, shape, kind, None)


def _close(joined: torch.Tensor, both: torch.Tensor) -> bool:
    if joined.shape != both.shape:
        return False
    if not both.is_floating_point():
        return bool((joined != both).double().mean() <= CLOSE)
    largest = float(both[both.isfinite()].abs().max()) if both.isfinite().any() else 0.0
    return torch.allclose(joined, both, rtol=0, atol=CLOSE * largest, equal_nan=True)


def _check(first: object) -> None:
    """Raise `BadInput` for an output that no device gives."""
    for name, leaf in _leaves(first):
        where = f"network output {name}" if name else "network output"
        if isinstance(leaf, torch.Tensor) and (leaf.is_complex() or leaf.layout != torch.strided):
            kind = str(leaf.dtype if leaf.is_complex() else leaf.layout).removeprefix("torch.")
            raise BadInput(where, kind, "return real, dense tensors, such as torch.view_as_real(…)")
        if not isinstance(leaf, (torch.Tensor, *CONSTANTS)):
            raise BadInput(where, type(leaf).__name__, f"return tensors in tuples, lists or dicts: {WRAP}")
    if not tensors(first):
        raise BadInput("network output", type(first).__name__, "return at least one tensor")


def _check_alike(first: object, second: object) -> None:
    """Raise `BadInput` where another input gives other parts, other shapes or other constants."""
    if _names(second) != _names(first):
        raise BadInput("network output", f"{_parts(first)} for one input, {_parts(second)} for another", WRAP)
    for (name, one), two in zip(named(first), tensors(second), strict=True):
        shapes = tuple(one.shape), tuple(two.shape)
        if shapes[0] != shapes[1]:
            raise BadInput(f"network output {name}", f"shape {shapes[0]} for one input, {shapes[1]} for another", WRAP)
        if not one.numel():
            raise BadInput(f"network output {name}", f"shape {shapes[0]}", f"return tensors with values: {WRAP}")
    _check_constants(first, second, "another")


def _check_constants(first: object, other: object, inputs: str) -> None:
    for (name, one), (_, two) in zip(_leaves(first), _leaves(other), strict=True):
        if not isinstance(one, torch.Tensor) and one is not two and one != two:
            remedy = "return it as a tensor: what is no tensor is exported as it was for one input"
            raise BadInput(f"network output {name}", f"{one!r} for one input, {two!r} for {inputs}", remedy)


def _names(returned: object) -> list[str]:
    return [name for name, _ in _leaves(returned)]


def _parts(returned: object) -> str:
    """The outermost container in a few words."""
    children = _children(returned)
    if children is None:
        return f"a {type(returned).__name__}"
    inner = sorted({type(child).__name__ for _, child in children})
    return f"a {type(returned).__name__} of {len(children)}" + (f" ({', '.join(inner)})" if inner else "")


def _children(value: object) -> list[tuple[object, object]] | None:
    """The parts of a container with their keys; None for what is none."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    return None


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """What is no container, in order, with the keys that lead there."""
    children = _children(value)
    if children is None:
        yield name, value
    for key, child in children or ():
        yield from _leaves(child, f"{name}.{key}" if name else str(key))


def _filled(value: Any, leaves: Iterator[object]) -> Any:
    """The same containers with other leaves."""
    children = _children(value)
    if children is None:
        return next(leaves)
    items = [_filled(child, leaves) for _, child in children]
    if isinstance(value, Mapping):
        made: Any = copy.copy(value) if isinstance(value, MutableMapping) else {}
        for key, item in zip(value, items, strict=True):
            made[key] = item
        return made
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
