"""One forward pass, and the layer that fails in it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunefleet.objective.errors import BadInput


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which each operation of torch's is run by `ran`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, only to tell it that this is none of its business: two seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Hand an operation to `ran`."""
        return self.ran(func, args, kwargs or {})

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and return what it gives."""
        return func(*args, **kwargs)


def tensors(value: object) -> list[torch.Tensor]:
    """Return all tensors in what a network returns, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for each in _inside(value) for tensor in tensors(each)]


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return value if isinstance(value, (list, tuple)) else ()


def run_once(network: nn.Module, example_input: torch.Tensor) -> tuple[dict[str, int], list[torch.Tensor]]:
    """Run one forward pass: the position of each module's first call, and all tensors that come out.

    Raises `BadInput` naming the layer that failed.
    """
    calls = _Calls()
    try:
        with calls.watching(network), torch.no_grad():
            return calls.order, tensors(network(example_input))
    except Exception as error:
        shape = tuple(example_input.shape)
        remedy = f"make it run on an input of shape {shape}: {brief(error)}"
        raise BadInput("network", calls.innermost, remedy) from error


@contextmanager
def named_module(network: nn.Module) -> Iterator[Callable[[], str]]:
    """Inside, the function tells the innermost module that runs, also while an error passes."""
    calls = _Calls()
    with calls.watching(network):
        yield lambda: calls.innermost


class _Calls:
    """What runs while a network runs."""

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self._entered: list[str] = []

    def enter(self, name: str, *_: object) -> None:
        self.order.setdefault(name, len(self.order))
        self._entered.append(name)

    def leave(self, *_: object) -> None:
        self._entered.pop()

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside, the calls of the network's modules are noted."""
        hooks = []
        for name, module in network.named_modules():
            hooks.append(module.register_forward_pre_hook(partial(self.enter, name)))
            hooks.append(module.register_forward_hook(self.leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def innermost(self) -> str:
        """The innermost named module that was entered and not left."""
        return next((name for name in reversed(self._entered) if name), "forward")


def brief(error: BaseException) -> str:
    """Return the error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def output_shapes(network: nn.Module, example_input: torch.Tensor) -> list[tuple[int, ...]]:
    """Return the shapes of all tensors that the network returns.

    Raises `BadInput` naming the layer where it does not run.
    """
    return [tuple(each.shape) for each in run_once(network, example_input)[1]]
