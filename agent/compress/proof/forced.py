"""Influence: what reaches each layer of the pruned network, beside what reaches it in the dense one.

In both networks every layer that computes channels from others gives noise instead of its output, the same in both, so
that only what lies between one such layer and the next is compared, and a channel in the wrong place shows in full.
Norms over channels, softmax and other statistics give what they give in the dense network. Each layer's own output is
compared with the dense layer's when it reads zeros where channels are removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from prunefleet.agent.compress.cut import READ_ONLY
from prunefleet.agent.compress.proof.proposal import Masks
from prunefleet.agent.compress.trace.trace_state import Site
from prunefleet.agent.compress.trace.tracer import aten, is_site, mha_unfused
from prunefleet.agent.compress.walk import Watcher, brief, named_module, tensors

TOLERANCE = 1e-4
"""The largest difference allowed, over the largest value: single precision, and no error adds up over layers."""


class Disagreement(Exception):
    """Where the pruned network is not what the plan says: the layer, what happened, and the groups that could be it."""

    def __init__(self, layer: str, what: str, groups: frozenset[str] = frozenset()) -> None:
        super().__init__(what)
        self.layer, self.what, self.groups = layer, what, groups


@dataclass(frozen=True)
class _Record:
    """A site of the dense pass: what reached it, what that makes without the removed channels, and what it gave."""

    given: tuple[torch.Tensor, ...]
    made: Any
    gave: Any


class Pass(Watcher):  # type: ignore[no-untyped-call]
    """A forward pass whose sites are taken in turn."""

    def __init__(self, sites: list[Site], masks: Masks) -> None:
        super().__init__()
        self.sites, self.masks, self.at, self.closed = sites, masks, 0, 0

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, at a site as this pass does."""
        if self.closed or not is_site(func, args):
            return func(*args, **kwargs)
        return self.take(self._next(), self.at - 1, func, args, kwargs)

    def _next(self) -> Site:
        if self.at >= len(self.sites):
            raise Disagreement("forward", "it takes another way when it is smaller")
        self.at += 1
        return self.sites[self.at - 1]

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[None]:
        """Inside, this pass runs; a layer that is not looked into is one site."""
        hooks = []
        for module in network.modules():
            if isinstance(module, READ_ONLY):
                hooks.append(module.register_forward_pre_hook(self._enter))
                hooks.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        self.closed += 1
        return self.entered(self._next(), inputs) if self.closed == 1 else None

    def _leave(self, module: nn.Module, inputs: Any, made: Any) -> Any:
        gives = self.left(self.sites[self.at - 1], self.at - 1, made) if self.closed == 1 else None
        self.closed -= 1
        return gives

    def entered(self, site: Site, inputs: tuple[Any, ...]) -> Any:
        """Return what a layer that is not looked into gets; None for what it has."""
        return None

    def left(self, site: Site, at: int, made: Any) -> Any:
        """Return what such a layer gives; None for what it does."""
        return None

    def take(self, site: Site, at: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the site gives."""
        raise NotImplementedError


class _Dense(Pass):  # type: ignore[no-untyped-call]
    """Records what reaches each site."""

    def __init__(self, sites: list[Site], masks: Masks) -> None:
        super().__init__(sites, masks)
        self.records: list[_Record] = []
        self._noise = torch.Generator().manual_seed(0)

    def take(self, site: Site, at: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute with zeros where channels are removed, and give noise; a statistic gives what it is."""
        places = _places(func, site)
        given = tuple(args[place].clone() for place in places)  # the network may write over it
        if not site.forced:
            self.records.append(_Record(given, None, None))
            return func(*args, **kwargs)
        if site.statistic:
            gave = func(*args, **kwargs)
            self.records.append(_Record(given, None, _cloned(gave)))
            return gave
        quiet = list(args)
        for place, atoms, tensor in zip(places, site.given, given, strict=True):
            quiet[place] = tensor * self.masks.kept(atoms, tensor.shape)
        made = func(*quiet, **kwargs)
        gave = _in_place_of(made, torch.randn(made.shape, generator=self._noise))
        self.records.append(_Record(given, made, gave.clone()))
        return gave

    def entered(self, site: Site, inputs: tuple[Any, ...]) -> Any:
        """Record what reaches the layer, and give it zeros where channels are removed."""
        self._given = inputs[0].clone()
        return (inputs[0] * self.masks.kept(site.given[0], inputs[0].shape), *inputs[1:])

    def left(self, site: Site, at: int, made: Any) -> Any:
        """Give noise."""
        gave = tree_map(lambda each: torch.randn(each.shape, generator=self._noise).to(each), made)
        self.records.append(_Record((self._given,), _cloned(made), _cloned(gave)))
        return gave


class _Pruned(Pass):  # type: ignore[no-untyped-call]
    """Compares what reaches each site with what the dense pass recorded."""

    def __init__(self, sites: list[Site], masks: Masks, records: list[_Record]) -> None:
        super().__init__(sites, masks)
        self._records = records

    def take(self, site: Site, at: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compare what reaches the site and what it computes, and give what the dense one gave."""
        record = self._records[at]
        for place, atoms, before in zip(_places(func, site), site.given, record.given, strict=True):
            self._compare(site, "its channels reach {} in another order or number", atoms, before, args[place])
        if not site.forced:
            return func(*args, **kwargs)
        if site.statistic:
            return self._statistic(site, func, args, record.gave)
        made = func(*args, **kwargs)
        self._compare(site, "{} computes something else without them", site.made, record.made, made)
        return _in_place_of(made, record.gave[self.masks.kept(site.made, record.gave.shape)])

    def entered(self, site: Site, inputs: tuple[Any, ...]) -> Any:
        """Compare what reaches the layer."""
        before = self._records[self.at - 1].given[0]
        self._compare(site, "its channels reach {} in another order or number", site.given[0], before, inputs[0])
        return None

    def left(self, site: Site, at: int, made: Any) -> Any:
        """Compare what the layer makes of it, and give what the dense one gave."""
        for before, after in zip(tree_leaves(self._records[at].made), tree_leaves(made), strict=True):
            self._compare(site, "{} computes something else without them", site.made, before, after)
        return _cloned(self._records[at].gave)

    def _statistic(self, site: Site, func: Any, args: tuple[Any, ...], gave: Any) -> Any:
        if func.overloadpacket in (aten.native_layer_norm, aten.native_group_norm):
            made = _normalised(func, args, gave)
            self._compare(site, "{} scales other channels", site.made, gave[0], made)
            return (_in_place_of(func(*args)[0], made), *_cloned(gave[1:]))
        first = gave if isinstance(gave, torch.Tensor) else gave[0]
        kept = self.masks.kept(site.made, first.shape)
        if bool(kept.all()):
            return _cloned(gave)
        return _without(gave, kept) if isinstance(gave, torch.Tensor) else tuple(_without(each, kept) for each in gave)

    def _compare(self, site: Site, what: str, atoms: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        expected = before[self.masks.kept(atoms, before.shape)]
        layer = site.layer or "the output"
        if expected.numel() != after.numel() or not close(expected, after.flatten()):
            raise Disagreement(layer, what.format(layer), frozenset(self.masks.losing(atoms, *site.given)))


def _in_place_of(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values in the shape and the memory layout of a tensor, by which torch chooses what runs next."""
    found = torch.empty_like(tensor)
    return found.copy_(values.reshape(tensor.shape))


def _cloned(value: Any) -> Any:
    return tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, value)


def _without(tensor: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The values that stay, in the shape that is left; one dimension alone gets shorter."""
    for dim in range(kept.ndim):
        line = kept.movedim(dim, 0).flatten(1)
        if bool((line == line[:, :1]).all()) and not bool(line.all()):
            return tensor.index_select(dim, line[:, 0].nonzero().flatten())
    return tensor


def _normalised(func: Any, args: tuple[Any, ...], gave: Any) -> torch.Tensor:
    """A norm by the dense network's mean and deviation."""
    image: torch.Tensor = args[0]
    mean, deviation = gave[1], gave[2]
    if func.overloadpacket is aten.native_layer_norm:
        weight, bias = args[2], args[3]
        scaled: torch.Tensor = (image - mean) * deviation
        scaled = scaled if weight is None else scaled.mul(weight)
        return scaled if bias is None else scaled.add(bias)
    weight, bias, groups = args[1], args[2], args[6]
    parts = image.reshape(image.shape[0], groups, -1)
    scaled = ((parts - mean[..., None]) * deviation[..., None]).reshape(image.shape)
    shape = [1, -1] + [1] * (image.ndim - 2)
    scaled = scaled if weight is None else scaled.mul(weight.reshape(shape))
    return scaled if bias is None else scaled.add(bias.reshape(shape))


def _places(func: Any, site: Site) -> tuple[int, ...]:
    """Which arguments of an operation are what a site is given."""
    first = 1 if func.overloadpacket in (aten.addmm, aten.baddbmm) else 0
    return tuple(range(first, first + len(site.given)))


def close(expected: torch.Tensor, got: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether two tensors of one shape agree within a share of the largest value."""
    if expected.shape != got.shape:
        return False
    if not expected.numel():
        return True
    limit = tolerance * float(expected.abs().max()) + 1e-9
    return bool(torch.isclose(expected, got, rtol=0, atol=limit, equal_nan=True).all())


def influence(dense: nn.Module, pruned: nn.Module, inputs: torch.Tensor, sites: list[Site], masks: Masks) -> None:
    """Raise `Disagreement` unless every layer of `pruned` is reached by the channels that the masks leave it.

    `inputs`: [n, ...], as traced. Both networks are left as they were.
    """
    first = _Dense(sites, masks)
    with observed(), first.on(dense):
        expected = tensors(dense(inputs))
    second = _Pruned(sites, masks, first.records)
    with observed(), named_module(pruned) as running:
        try:
            with second.on(pruned):
                got = tensors(pruned(inputs))
        except Disagreement:
            raise
        except Exception as error:  # whatever a network's own code raises
            what = f"pruning it breaks {running()}: {brief(error)}"
            raise Disagreement(running(), what) from error
    if second.at != len(sites) or len(got) != len(expected):
        raise Disagreement("forward", "the network takes another way when it is smaller")
    for one, other in zip(expected, got, strict=False):
        if not close(one, other):
            raise Disagreement("forward", "pruning it changes the network's output")


@contextmanager
def observed() -> Iterator[None]:
    """Inside, nothing is trained, and attention runs in the operations of its definition."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), mha_unfused():
        torch.manual_seed(0)
        yield
