"""The tested zoo, and what every pruned network has to stand."""

import copy
import random
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prunefleet.agent.compress.groups import Group
from prunefleet.agent.compress.prune import Pruned
from prunefleet.agent.measure.export import export, parity
from prunefleet.agent.tasks.networks.zoo import classifier

ZOO = {
    "torchvision/resnet18": 64,
    "torchvision/resnet50": 64,
    "torchvision/mobilenet_v2": 64,
    "torchvision/mobilenet_v3_large": 64,
    "torchvision/mnasnet1_0": 64,
    "torchvision/efficientnet_b0": 64,
    "timm/tf_efficientnet_lite0": 64,
    "torchvision/densenet121": 64,
    "torchvision/squeezenet1_1": 64,
    "torchvision/googlenet": 64,
    "torchvision/inception_v3": 96,
    "torchvision/vgg11_bn": 64,
    "torchvision/regnet_x_400mf": 64,
    "torchvision/regnet_y_400mf": 64,
    "torchvision/convnext_tiny": 64,
    "timm/mobilenetv4_conv_small": 64,
    "timm/repvgg_a0": 64,
}
"""Names, and the side of the square images that they are tested with."""
MIXING = (nn.LayerNorm, nn.GroupNorm)
"""Layers in which a channel's value depends on the others: removing a channel is then more than silencing it."""
READER = """
import pickle, sys, timm, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from prunefleet.agent.compress import bundle
from prunefleet.agent.tasks.networks.zoo import classifier
def refuse(*_, **__): raise SystemExit("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse
for line in sys.stdin:
    name, folder = line.rstrip().split(" ", 1)
    image = load_file(Path(folder) / "image.safetensors")["image"]
    network = bundle.read(Path(folder), classifier(name, classes=10, seed=99), image)
    with torch.no_grad():
        save_file({"logits": network(image)}, Path(folder) / "logits.safetensors")
    print("done", flush=True)
"""


class Reader:
    """Another process, which never saw the networks that it reads from bundles, and which cannot unpickle."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", READER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self, name: str, folder: Path, image: torch.Tensor) -> torch.Tensor:
        """What the network in the bundle `folder` computes there."""
        save_file({"image": image}, folder / "image.safetensors")
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{name} {folder}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"
        return load_file(folder / "logits.safetensors")["logits"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


def dense(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network with ten classes, its norms as if it were trained, and an image."""
    network = classifier(name, classes=10)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1, generator=random)
                module.running_var.uniform_(0.5, 1.5, generator=random)
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.normal_(0, 0.1, generator=random)
    return network, torch.randn(1, 3, ZOO[name], ZOO[name], generator=random)


def random_kept(groups: Sequence[Group], ratio: float, seed: int = 0) -> dict[str, int]:
    """Channels to keep in each group, pruned by `ratio` ± 0.15, each by its own."""
    dice = random.Random(seed)
    bundles = {
        group.name: round(group.width / group.multiple * (1 - ratio + dice.uniform(-0.15, 0.15))) for group in groups
    }
    return {group.name: min(max(bundles[group.name], 1) * group.multiple, group.width) for group in groups}


def random_gone(groups: Sequence[Group], ratio: float, seed: int = 0) -> dict[str, set[int]]:
    """Root channels to remove from each group, whole bundles, at least one staying."""
    dice = random.Random(seed)
    gone = {}
    for group in groups:
        bundles = sorted(set(group.tied))
        lost = set(dice.sample(bundles, min(round(ratio * len(bundles)), len(bundles) - 1)))
        gone[group.name] = {number for number, bundle in enumerate(group.tied) if bundle in lost}
    return gone


def muted(network: nn.Module, groups: Sequence[Group], gone: Mapping[str, set[int]]) -> nn.Module:
    """The whole network with the removed channels silenced before each layer that reads them.

    Where no layer mixes channels, this and the network without them compute the same, or the wrong ones were removed.
    """
    silent = copy.deepcopy(network).eval()
    for group in groups:
        for slot in group.slots:
            if not slot.out:
                silent.get_submodule(slot.layer).register_forward_pre_hook(
                    _mute(sorted(slot.removed(gone[group.name])))
                )
    return silent


def _mute(channels: list[int]) -> object:
    def hook(layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = inputs[0].clone()
        if isinstance(layer, nn.Linear | nn.RNNBase):
            x[..., channels] = 0
        else:
            x[:, channels] = 0
        return (x,)

    return hook


def only_cut(pruned: nn.Module, network: nn.Module) -> bool:
    """Whether every number in the pruned network's tensors is one of the same tensor's before."""
    before = network.state_dict()
    return all(torch.isin(tensor, before[name]).all() for name, tensor in pruned.state_dict().items())


def mixes(groups: Sequence[Group], network: nn.Module) -> bool:
    """Whether channels of the groups meet in a layer that mixes them."""
    modules = dict(network.named_modules())
    return any(isinstance(modules.get(slot.layer), MIXING) for group in groups for slot in group.slots)


def difference(one: nn.Module, other: nn.Module, image: torch.Tensor) -> float:
    """Largest difference of their outputs in evaluation, relative to the largest output."""
    with torch.no_grad():
        a, b = one.eval()(image), other.eval()(image)
    return float((a - b).abs().max() / a.abs().max())


def trains(network: nn.Module, image: torch.Tensor) -> bool:
    """Whether a forward and a backward pass in training mode reach every parameter."""
    network.train()
    network(torch.cat([image, image.flip(3)])).square().sum().backward()
    return all(parameter.grad is not None for parameter in network.parameters())


def exported_difference(pruned: Pruned, image: torch.Tensor, folder: Path) -> float:
    """How much OpenVINO differs from torch, relative to the largest output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parity(export(pruned.network, image, folder), pruned.network, image)
