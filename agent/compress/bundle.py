"""A pruned network as files that hold no code: `kept.json` and `weights.safetensors`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from prunefleet.agent.compress.groups import Group, find_groups
from prunefleet.agent.compress.prune import shrink
from prunefleet.agent.compress.weights import load_weights
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

KEPT, WEIGHTS = "kept.json", "weights.safetensors"


def write(folder: Path, network: nn.Module, kept: Mapping[str, int]) -> list[Path]:
    """Write a pruned network's channels by group and its weights into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, for layers that share a tensor would not be written otherwise.
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / KEPT).write_text(json.dumps(dict(kept), indent=1))
    return [folder / KEPT, folder / WEIGHTS]


def read(
    folder: Path, dense: nn.Module, example_input: torch.Tensor, groups: Sequence[Group] | None = None
) -> nn.Module:
    """The pruned network in `folder`, in evaluation mode, rebuilt from its dense one, whatever weights that has.

    `example_input`: [1, ...]; `groups` are those of `dense`, found if not given. Raises `BadInput` where a file is
    missing or damaged, or the two networks do not belong together.
    """
    kept, state = _kept(folder / KEPT), _state(folder / WEIGHTS)
    network = shrink(dense, example_input, find_groups(dense, example_input) if groups is None else groups, kept)
    try:
        load_weights(network, state)
    except RuntimeError as error:
        remedy = f"give the dense network it was pruned from: {' '.join(str(error).split())[:200]}"
        raise BadInput("weights", str(folder / WEIGHTS), remedy) from error
    return network.eval()


def _kept(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput("kept", str(path), f"give the file that was written with the weights: {error}") from error
    return {name: checks.whole(f"kept.{name}", count) for name, count in checks.mapping("kept", found).items()}


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise BadInput("weights", str(path), f"give a whole safetensors file: {error}") from error
