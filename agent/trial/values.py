"""Where a forward pass reads values of its input in Python: an exported network goes on as it went for one input."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunefleet.agent.measure.outputs import noise_like
from prunefleet.objective.errors import BadInput

REMEDY = (
    "its forward reads this value in Python (if, while, int(), item()) and goes by it, which an exported network "
    "cannot: use torch.where, or make the choice in the task's evaluate"
)


@dataclass(frozen=True)
class Read:
    """A value that Python read from a tensor made of the input, and the innermost layer that was running."""

    layer: str
    value: object


def check_values(network: nn.Module, example_input: torch.Tensor) -> None:
    """Raise `BadInput`, naming the layer, where other inputs give other values that the forward pass reads.

    A value that is the same for all inputs tried, as in a check for NaN, is taken for one that decides nothing.
    """
    first = reads(network, example_input)
    for other in _others(example_input) if first else ():
        second: list[Read] = []
        with suppress(Exception):  # not an input that it takes
            second = reads(network, other)
        for one, two in zip(first, second, strict=False):
            if one != two and one.value == one.value:
                got = f"{one.value} for one input, {two.value} for another"
                raise BadInput(f"network.{one.layer}", got, REMEDY)


def _others(example_input: torch.Tensor) -> Iterator[torch.Tensor]:
    noise = noise_like(example_input)
    yield from (noise, -example_input, torch.zeros_like(noise))
    for scale in (-100, 100):  # what a bias decides for usual inputs
        yield from (scale * noise, torch.full_like(noise, scale))


@torch.no_grad()
def reads(network: nn.Module, batch: torch.Tensor) -> list[Read]:
    """The values that a forward pass of `network` reads, in order."""
    with inside(network) as innermost:
        watch = _Reading(batch, innermost)
        with watch:
            network(batch)
    return watch.found


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


class _Reading(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is made of a tensor, and notes what is made of it that is no tensor any more."""

    def __init__(self, batch: torch.Tensor, innermost: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Read] = []
        self._made, self._innermost = _Made(), innermost
        self._made.add(batch)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, only to tell it that this is none of its business."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; note its result."""
        found = func(*args, **(kwargs or {}))
        if any(each in self._made for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)):
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    self._made.add(each)
                elif isinstance(each, bool | int | float):
                    self.found.append(Read(self._innermost(), each))
        return found
