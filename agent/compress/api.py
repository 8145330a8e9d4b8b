"""Pruning from Python, without a sweep: list a network's groups, prune them, read a bundle back."""

import difflib
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from torch import nn

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress import prune as pruning
from prunefleet.agent.compress.fold import copied
from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.groups import Survey, survey
from prunefleet.agent.compress.prune import Pruned
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import IMPORTANCES, RANKINGS

NEEDS_GRADIENTS = "taylor"
WITHOUT_DATA = tuple(name for name in IMPORTANCES if name != NEEDS_GRADIENTS)
LISTED = 5  # names of groups in a message
SEEDS = 2**63  # torch takes no larger ones


@dataclass(frozen=True)
class Groups:
    """The groups of a network that can be pruned; iterating yields each `Group` in forward order.

    Args:
        groups: the groups in forward order. All layers of a group keep the same channels. `name` is its name in
            `prune`, `width` the number of its channels, `members` the layers whose outputs are pruned together, and
            `multiple` the step in which channels are kept: 1 unless channels are tied together, as beside grouped
            convolutions. `proof` says how the group was proven, "silence" or "influence". A group with a `branch` may
            keep no channel: then that residual branch is left out.
        whole: each layer that is not pruned, by its name in the network, and the reason.
    """

    groups: tuple[Group, ...]
    whole: Mapping[str, str]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def groups(network: nn.Module, example_input: torch.Tensor) -> Groups:
    """Return the groups of `network` that can be pruned, and the reason why each other layer is not.

    The network is not changed.

    Args:
        network: the network to look at.
        example_input: an input that the network runs on, [n, ...]; only the first of the n is used.

    Raises:
        BadInput: `example_input` has no batch dimension, or the network does not run on it, cannot be traced, or has
            nothing to prune.
    """
    found = _surveyed(network, _one_input(network, example_input))
    return Groups(found.groups, found.whole)


def prune(
    network: nn.Module,
    example_input: torch.Tensor,
    kept: Mapping[str, int],
    importance: str = "l2",
    ranking: str = "filter",
    seed: int = 0,
) -> Pruned:
    """Return a pruned copy of `network` with exactly the `kept` channels in each group.

    The network that was given is not changed. The weights that stay are copied; the copy is not fine-tuned.

    Args:
        network: the network to prune.
        example_input: an input that the network runs on, [n, ...]; only the first of the n is used.
        kept: the number of channels that stay, by the group's name; a group that is left out is not pruned. 0 leaves
            out the residual branch of a group that has one.
        importance: the criterion by which channels are ranked, the least important go: "l1", "l2", "fpgm", "bn_scale"
            or "random".
        ranking: the weights that count: "filter" (of layers that write the channel), "channel" (of layers that read
            it) or "group" (both).
        seed: of the importance "random".

    Raises:
        BadInput: an unknown group; a count that is not whole, outside 1 to the group's width, or no multiple of the
            group's `multiple`; an importance that is unknown or needs gradients; an input without a batch; a network
            that cannot be pruned.
    """
    counts = {name: _whole(f"kept.{name}", count) for name, count in checks.mapping("kept", kept).items()}
    if importance == NEEDS_GRADIENTS:
        remedy = f"choose one of {', '.join(WITHOUT_DATA)}: it needs gradients, and there is no training data here"
        raise BadInput("importance", importance, remedy)
    checks.one_of("importance", importance, WITHOUT_DATA)
    checks.one_of("ranking", ranking, RANKINGS)
    if checks.whole("seed", seed) >= SEEDS:
        raise BadInput("seed", seed, "give a whole number below 2^63")
    one = _one_input(network, example_input)
    found = _surveyed(network, one).groups
    _check_names(counts, found)
    return pruning.prune(network, one, found, counts, importance, seed, ranking)


def load_bundle(folder: str | Path, dense: nn.Module, example_input: torch.Tensor) -> nn.Module:
    """Return the pruned network that a trial wrote into `folder`, in evaluation mode.

    Args:
        folder: a folder with `kept.json` and `weights.safetensors`.
        dense: the network that was pruned, with any weights; it is not changed.
        example_input: an input that the network runs on, [n, ...]; only the first of the n is used.

    Raises:
        BadInput: a file is missing or damaged, or `dense` is not the network that was pruned.
    """
    if not isinstance(folder, str | Path):
        raise BadInput("folder", folder, "give the path of a bundle's folder")
    return bundle.read(Path(folder), dense, _one_input(dense, example_input))


_known: "weakref.WeakKeyDictionary[nn.Module, tuple[object, Survey]]" = weakref.WeakKeyDictionary()


def _surveyed(network: nn.Module, one: torch.Tensor) -> Survey:
    """The groups of a network, proven once for the same weights and the same kind of input."""
    tensors = (*network.parameters(), *network.buffers())
    now = (tuple((each.data_ptr(), each._version, each.shape) for each in tensors), one.shape, one.dtype)
    if _known.get(network, (None,))[0] != (now, network.training):
        _known[network] = (now, network.training), survey(network, one)
    return _known[network][1]


def _whole(field: str, got: object) -> int:
    if isinstance(got, bool) or not isinstance(got, Integral):
        raise BadInput(field, got, "give a whole number of channels, at least 1")
    return int(got)


def _check_names(kept: Mapping[str, int], found: tuple[Group, ...]) -> None:
    """Raise `BadInput` for a name that is no group's."""
    names = [group.name for group in found]
    for name in kept:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3)
            listed = f"{', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}"
            remedy = f"did you mean {' or '.join(near)}?" if near else f"name a group of the network: {listed}"
            raise BadInput(f"kept.{name}", kept[name], remedy)


def _one_input(network: nn.Module, example_input: torch.Tensor) -> torch.Tensor:
    """Return the first input of a batch, [1, ...]. Raises `BadInput` for what is no batch."""
    if not isinstance(network, nn.Module):
        raise BadInput("network", type(network).__name__, "give a torch.nn.Module")
    if not isinstance(example_input, torch.Tensor):
        raise BadInput("example_input", type(example_input).__name__, "give a tensor [1, ...]")
    if example_input.ndim < 2 or not _has_batch(network, example_input):
        remedy = "give one input with a batch dimension, [1, ...]: example_input.unsqueeze(0)"
        raise BadInput("example_input", tuple(example_input.shape), remedy)
    if not len(example_input):
        raise BadInput("example_input", tuple(example_input.shape), "give a batch of at least one input")
    return example_input[:1]


def _has_batch(network: nn.Module, example_input: torch.Tensor) -> bool:
    """Return False where the first convolution sees no batch dimension: torch would run without one."""
    tried, seen = copied(network).eval(), list[bool]()

    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.modules.conv._ConvNd)
        seen.append(inputs[0].ndim == len(layer.kernel_size) + 2)

    for layer in tried.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.register_forward_pre_hook(look)
    with torch.no_grad(), suppress(Exception):  # a network that does not run is refused later, by the layer's name
        tried(example_input)
    return all(seen[:1])
