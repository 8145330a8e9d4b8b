"""One forward pass, followed operation by operation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from prunefleet.agent.compress.cut import READ_ONLY
from prunefleet.agent.compress.trace import layers, pointwise
from prunefleet.agent.compress.trace.movement import moved, moves
from prunefleet.agent.compress.trace.trace_state import Side, Site, TraceState
from prunefleet.agent.compress.walk import Watcher, tensors

aten = torch.ops.aten
Rule = Callable[[TraceState, Any, Any, Any, Any], None]

RULES: dict[Any, Rule] = {
    aten.convolution: layers.convolution,
    aten.mm: layers.product,
    aten.addmm: layers.product,
    aten.bmm: layers.product,
    aten.baddbmm: layers.product,
    aten.native_batch_norm: layers.batch_norm,
    aten._native_batch_norm_legit: layers.batch_norm,
    aten._native_batch_norm_legit_no_training: layers.batch_norm,
    aten.cudnn_batch_norm: layers.batch_norm,
    aten.native_layer_norm: layers.layer_norm,
    aten.native_group_norm: layers.group_norm,
    aten.glu: layers.gated,
    aten._softmax: pointwise.softmax,
    aten._log_softmax: pointwise.softmax,
    aten._safe_softmax: pointwise.softmax,
}
"""The operations with a rule of their own."""
REDUCTIONS = frozenset(
    {aten.linalg_vector_norm, aten.var_mean, aten.std_mean, aten.logsumexp, aten.std, aten.var, aten.norm, aten.median}
)
POINTWISE = frozenset(
    {
        aten._prelu_kernel, aten.hardswish, aten.hardsigmoid, aten.hardtanh, aten.softplus, aten.leaky_relu, aten.elu,
        aten.native_dropout, aten.rrelu_with_noise, aten.log_sigmoid_forward, aten.masked_fill, aten.where, aten.lerp,
        aten.addcmul, aten.addcdiv, aten.copy, aten.threshold, aten.cumsum, aten.celu, aten.mish, aten.hardshrink,
        aten.softshrink, aten.nan_to_num, aten.alias, aten.zeros_like, aten.ones_like,
    }
)  # fmt: skip
SPATIAL = ("max_pool", "avg_pool", "_adaptive_avg_pool", "adaptive_", "upsample_", "_upsample_", "reflection_pad",
           "replication_pad", "grid_sampler", "lp_pool", "fractional_max_pool", "affine_grid")  # fmt: skip
SITES = frozenset(
    {aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.native_layer_norm, aten.native_group_norm,
     aten._softmax, aten._log_softmax, aten._safe_softmax}
)  # fmt: skip
"""Operations of which each call is a `Site`; reductions are too."""


NO_RULE = "an operation without a rule here"


def reduces(func: Any) -> bool:
    """Return whether an operation makes one value of many."""
    return torch.Tag.reduction in func.tags or func.overloadpacket in REDUCTIONS


def is_site(func: Any, args: Any) -> bool:
    """Return whether a call of an operation is one of the places at which a pass can be compared with another."""
    return func.overloadpacket in SITES or (reduces(func) and _is_data(args))


def _is_data(args: Any) -> bool:
    return bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_floating_point() and args[0].ndim > 0


class _Follower(Watcher):  # type: ignore[no-untyped-call]
    """Calls a rule for each operation that runs."""

    def __init__(self, state: TraceState) -> None:
        super().__init__()
        self._state = state
        self.closed = 0

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and follow it."""
        out = func(*args, **kwargs)
        if not self.closed:
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        state, packet = self._state, func.overloadpacket
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        base = _functional(packet)
        if not any(state.known(each) for each in given) and not is_site(func, args):
            return
        if base in RULES:
            RULES[base](state, func, args, kwargs, out)
        elif base is not packet:
            _in_place(state, func, base, args, kwargs, out)
        elif moves(func):
            moved(state, func, args, kwargs, out)
        elif is_site(func, args):
            pointwise.reduction(state, func, args, kwargs, out)
        elif torch.Tag.pointwise in func.tags or packet in POINTWISE:
            pointwise.pointwise(state, func, args, kwargs, out)
        elif packet.__name__.startswith(SPATIAL):
            pointwise.spatial(state, func, args, kwargs, out)
        else:
            _unknown(state, packet, given)


def _functional(packet: Any) -> Any:
    """The operation that computes the same without writing in place; itself where it does not."""
    name = packet.__name__
    return getattr(aten, name[:-1], packet) if name.endswith("_") and not name.endswith("__") else packet


def _in_place(state: TraceState, func: Any, base: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Follow an operation that writes into its first operand."""
    target = args[0]
    if base is aten.copy and isinstance(args[1], torch.Tensor):
        atoms = pointwise.combined(state, [args[1]], target)
    elif base in (aten.fill, aten.zero, aten.uniform, aten.normal, aten.bernoulli, aten.random):
        atoms = torch.zeros((), dtype=torch.int64)
    elif base in (aten.index_put, aten.scatter, aten.masked_scatter):
        _unknown(state, base, [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)])
        return
    else:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        atoms = pointwise.combined(state, given, target)
    state.write(target, atoms)


def _unknown(state: TraceState, packet: Any, given: list[torch.Tensor]) -> None:
    """An operation without a rule: what goes in stays whole."""
    for each in given:
        if state.known(each):
            state.pin(
                state.of(each), f"its channels pass through {packet.__name__} in {state.module or 'forward'}, {NO_RULE}"
            )


def trace(network: nn.Module, example_input: torch.Tensor) -> TraceState:
    """Follow every channel through one forward pass on `example_input`, [n, ...]; the network must run on it."""
    state = TraceState()
    state.enter_parameters(network)
    channels = state.atoms.new(
        example_input.shape[1] if example_input.ndim > 1 else 1, "its channels are added to the network's input"
    )
    image = example_input.detach().clone()
    state.set(image, channels.reshape([1, -1] + [1] * (image.ndim - 2)) if image.ndim > 1 else channels)
    follower = _Follower(state)
    with _hooked(network, state, follower), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), mha_unfused(), follower:
        found = network(image)
    for each in tensors(found):
        if state.known(each):
            state.pin(state.of(each), "it makes the network's output")
    return state


@contextmanager
def mha_unfused() -> Iterator[None]:
    """Inside, torch's attention runs in the operations of its definition, not as one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _hooked(network: nn.Module, state: TraceState, follower: _Follower) -> Iterator[None]:
    """Inside, the state knows which module runs, and layers that only read are not looked into."""
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(_enter, state, follower, name)))
        hooks.append(module.register_forward_hook(partial(_leave, state, follower, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _enter(state: TraceState, follower: _Follower, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    state.stack.append(name)
    if isinstance(module, READ_ONLY):
        follower.closed += 1
        if follower.closed == 1:
            given = inputs[0]
            read = state.meet(Side(name, False), state.along(state.of(given), given.ndim - 1))
            shape = [1] * (given.ndim - 1) + [-1]
            nothing = torch.zeros((), dtype=torch.int64)
            state.sites.append(Site("layer", name, (read.reshape(shape),), nothing, True, False))
            for each in inputs[1:]:
                for tensor in tree_leaves(each):
                    if isinstance(tensor, torch.Tensor) and state.known(tensor):
                        state.pin(state.of(tensor), f"its channels pass through {name}, a {type(module).__name__}")


def _leave(state: TraceState, follower: _Follower, name: str, module: nn.Module, inputs: Any, found: Any) -> None:
    state.stack.pop()
    if isinstance(module, READ_ONLY):
        follower.closed -= 1
        if follower.closed == 0:
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    reason = f"its channels meet what {name}, a {type(module).__name__}, writes"
                    made = state.atoms.new(each.shape[-1], reason)
                    state.set(each, made)
