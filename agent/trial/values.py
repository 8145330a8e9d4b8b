"""Where a forward pass reads values of its input in Python: an exported network goes on as it went for one input."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunefleet.agent.compress.walk import Watcher
from prunefleet.agent.measure.outputs import noise_like, tensors
from prunefleet.objective.errors import BadInput

REMEDY = (
    "its forward reads this value in Python (if, while, int(), item()) and goes by it, which an exported network "
    "cannot: use torch.where, or make the choice in the task's evaluate"
)


MOST = 16
"""Values whose opposite is tried."""


@dataclass(frozen=True)
class Read:
    """A value that Python read from a tensor made of the input, and the innermost layer that was running."""

    layer: str
    value: object


def check_values(network: nn.Module, example_input: torch.Tensor) -> None:
    """Raise `BadInput`, naming the layer, where what the forward pass reads decides what comes out.

    A number does where it is another one for other inputs; a yes or no does where the opposite would give another
    output. A check that ends in an error, as one for NaN, decides nothing.
    """
    first, outcome = reads(network, example_input)
    numbers = any(not isinstance(each.value, bool) for each in first)
    for other in _others(example_input) if numbers else ():
        second: list[Read] = []
        with suppress(Exception):  # not an input that it takes
            second = reads(network, other)[0]
        _check_numbers(first, second)
    for place, one in enumerate(first[:MOST]):
        if isinstance(one.value, bool) and _decides(network, example_input, place, outcome):
            raise BadInput(f"network.{one.layer}", f"a choice by values, {one.value} for example_input", REMEDY)


def _check_numbers(first: Sequence[Read], second: Sequence[Read]) -> None:
    for one, two in zip(first, second, strict=False):
        if one != two and not isinstance(one.value, bool) and one.value == one.value:
            raise BadInput(f"network.{one.layer}", f"{one.value} for one input, {two.value} for another", REMEDY)


def _decides(network: nn.Module, batch: torch.Tensor, place: int, outcome: Sequence[torch.Tensor]) -> bool:
    """Whether the opposite of the yes or no that is read at that place gives another output."""
    try:
        other = reads(network, batch, place)[1]
    except Exception:  # what it checks is so for every sound input
        return False
    same = len(other) == len(outcome) and all(map(torch.equal, other, outcome))
    return not same


def _others(example_input: torch.Tensor) -> Iterator[torch.Tensor]:
    noise = noise_like(example_input)
    yield from (noise, -example_input, 100 * noise, torch.zeros_like(noise))


@torch.no_grad()
def reads(network: nn.Module, batch: torch.Tensor, turned: int | None = None) -> tuple[list[Read], list[torch.Tensor]]:
    """The values that a forward pass of `network` reads, in order, and its outputs; one yes or no may be `turned`."""
    with inside(network) as innermost:
        watch = _Reading(batch, innermost, turned)
        with watch:
            returned = network(batch)
    return watch.found, tensors(returned)


@contextmanager
def inside(network: nn.Module) -> Iterator[Callable[[], str]]:
    """Gives the name of the innermost layer that runs, "forward" outside of all."""
    entered: list[str] = []

    def enter(name: str, *_: object) -> None:
        entered.append(name)

    def leave(*_: object) -> None:
        entered.pop()

    hooks = [
        hook
        for name, module in network.named_modules()
        for hook in (module.register_forward_pre_hook(partial(enter, name)), module.register_forward_hook(leave))
    ]
    try:
        yield lambda: next((name for name in reversed(entered) if name), "forward")
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Made:
    """The tensors that were made of the input, as long as they live."""

    known: dict[int, "ref[torch.Tensor]"] = field(default_factory=dict)

    def add(self, tensor: torch.Tensor) -> None:
        self.known[id(tensor)] = ref(tensor)

    def __contains__(self, value: object) -> bool:
        found = self.known.get(id(value))
        return found is not None and found() is value


class _Reading(Watcher):  # type: ignore[no-untyped-call]
    """Follows what is made of a tensor, and notes what is made of it that is no tensor any more."""

    def __init__(self, batch: torch.Tensor, innermost: Callable[[], str], turned: int | None) -> None:
        super().__init__()
        self.found: list[Read] = []
        self._made, self._innermost, self._turned = _Made(), innermost, turned
        self._made.add(batch)

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation; note its result."""
        found = func(*args, **kwargs)
        if not any(each in self._made for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)):
            return found
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor):
                self._made.add(each)
        if isinstance(found, bool | int | float):
            self.found.append(Read(self._innermost(), found))
            if isinstance(found, bool) and self._turned == len(self.found) - 1:
                return not found
        return found
