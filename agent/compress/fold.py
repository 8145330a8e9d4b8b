"""What is attached to a layer's weights, put into them: parametrisations, masks, weight norms of the old kind."""

import copy
import warnings
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunefleet.agent.compress.attention import Attention, plain


def copied(network: nn.Module) -> nn.Module:
    """Return a deep copy, also where a weight is computed from others, which torch itself refuses to copy."""
    memo: dict[int, object] = {}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def folded(network: nn.Module) -> nn.Module:
    """Return the network, changed, with plain weights where something computes them from others.

    What a network computes in evaluation mode stays the same: `torch.nn.utils.parametrizations`, masks of
    `torch.nn.utils.prune`, and the weight and spectral norms of before these. `nn.MultiheadAttention` becomes
    `Attention`, which has plain layers.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()  # or a spectral norm would take another step
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for module, _ in modes:
            _fold(module)
            _open_attention(module)
    for module, training in modes:
        module.training = training
    return network


def _open_attention(module: nn.Module) -> None:
    """Put attention in plain layers, whose heads can be pruned, in the place of torch's."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.MultiheadAttention) and type(child) is nn.MultiheadAttention and plain(child):
            setattr(module, name, Attention(child))


def _fold(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        # torch takes the property off the class, which a copy has in common with the network that it was made from.
        own = type(module)
        module.__class__ = type(own.__name__, own.__bases__, dict(own.__dict__))
        attached = cast(nn.ModuleDict, module.parametrizations)
        for name in list(attached):
            trains = any(each.requires_grad for each in attached[name].parameters(recurse=False))
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            _as_parameter(module, name, trains)
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)


def _as_parameter(module: nn.Module, name: str, trains: bool) -> None:
    """Make a parameter of a weight that torch left as a plain tensor, as it does of one made of several."""
    value = getattr(module, name)
    for kept in (module._parameters, module._buffers, vars(module)):
        kept.pop(name, None)
    module.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=trains))
