"""The tested zoo, and what every pruned network has to stand."""

import copy
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._pytree import tree_leaves

from prunefleet.agent.compress.groups import Group
from prunefleet.agent.compress.prune import Pruned, count_macs, prune
from prunefleet.agent.measure.export import export, parity
from prunefleet.agent.tasks.networks.zoo import classifier

from support.detectors import ssdlite
from support.paths import TESTS
from support.yolo_like import yolo_like

CLASSES = 10
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
    "timm/skresnet18": 64,
    "timm/cspresnet50": 64,
    "timm/cspdarknet53": 64,
    "torchvision/shufflenet_v2_x1_0": 64,
    "timm/deit_tiny_patch16_224": 224,
    "timm/swin_tiny_patch4_window7_224": 224,
    "torchvision/vit_b_16": 224,
    "timm/mobilevit_s": 64,
    "timm/efficientformer_l1": 224,
    "ours/yolo_like": 64,
    "ours/ssdlite": 160,
}
"""Names, and the side of the square images that they are tested with."""
OURS: dict[str, Callable[[], nn.Module]] = {
    "ours/yolo_like": lambda: yolo_like(CLASSES),
    "ours/ssdlite": lambda: ssdlite(CLASSES),
}
"""Networks that are no classifiers: they return a list, and a dict."""
MIXING = (nn.LayerNorm, nn.GroupNorm)
"""Layers in which a channel's value depends on the others: removing a channel is then more than silencing it."""
READER = """
import pickle, sys, timm, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from prunefleet.agent.compress import bundle
from support.zoo import answers, made
def refuse(*_, **__): raise SystemExit("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse
for line in sys.stdin:
    name, folder = line.rstrip().split(" ", 1)
    image = load_file(Path(folder) / "image.safetensors")["image"]
    network = bundle.read(Path(folder), made(name, seed=99), image)
    with torch.no_grad():
        save_file(answers(network, image), Path(folder) / "answers.safetensors")
    print("done", flush=True)
"""


class Reader:
    """Another process, which never saw the networks that it reads from bundles, and which cannot unpickle."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", READER]
        env = os.environ | {"PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def read(self, name: str, folder: Path, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network in the bundle `folder` computes there."""
        save_file({"image": image}, folder / "image.safetensors")
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{name} {folder}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"
        return load_file(folder / "answers.safetensors")

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


def made(name: str, seed: int = 0) -> nn.Module:
    """The network with ten classes and random weights."""
    if name not in OURS:
        return classifier(name, classes=CLASSES, seed=seed)
    torch.manual_seed(seed)
    return OURS[name]()


def prunable_share(network: nn.Module, image: torch.Tensor, groups: Sequence[Group]) -> float:
    """The share of the multiply-accumulates that is gone where each group keeps as little as it can."""
    least = prune(network, image, groups, {group.name: group.multiple for group in groups})
    return 1 - least.macs / count_macs(network, image)


def dense(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network with ten classes, its norms as if it were trained, and an image."""
    network = made(name)
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
    a, b = answers(one.eval(), image), answers(other.eval(), image)
    return max(float((a[name] - b[name]).abs().max() / a[name].abs().max()) for name in a)


def answers(network: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """All tensors that a network returns, by number."""
    with torch.no_grad():
        return {str(at): each.clone() for at, each in enumerate(tree_leaves(network(image)))}


def trains(network: nn.Module, image: torch.Tensor) -> bool:
    """Whether a forward and a backward pass in training mode reach every parameter."""
    network.train()
    outputs = tree_leaves(network(torch.cat([image, image.flip(3)])))
    sum(output.square().sum() for output in outputs).backward()
    return all(parameter.grad is not None for parameter in network.parameters())


def exported_difference(pruned: Pruned, image: torch.Tensor, folder: Path) -> float:
    """How much OpenVINO differs from torch, relative to the largest output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parity(export(pruned.network, image, folder), pruned.network, image)
