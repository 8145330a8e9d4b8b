"""Image classifiers by name, from torchvision and timm: `torchvision/resnet18`, `timm/tf_efficientnet_lite0`."""

import difflib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from prunefleet.agent.compress.weights import load_weights
from prunefleet.agent.tasks.networks import misfit
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

HUB = "hub"
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads for training alone, which googlenet and inception_v3 come with; networks from here have none."""
WRAPPERS = ("state_dict", "model", "state_dict_ema")
IMAGENET = 1000

State = dict[str, torch.Tensor]


def classifier(
    name: str,
    classes: int = IMAGENET,
    channels: int = 3,
    weights: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """The network `name`, "torchvision/…" or "timm/…", for images of `channels` channels and with `classes` outputs.

    `weights` is a file (safetensors, or a state dict saved by torch, read without unpickling objects), "hub" for the
    network's own from the internet, or None: initialised at random, the same for one `seed`. Where classes or channels
    differ from those of the weights, the last layer is new, and the first one's filters are summed or repeated.
    `options` go to the network's constructor. Raises `BadInput` for an unknown name, missing packages, or weights that
    do not fit.
    """
    make = _maker(name)
    checks.whole("classes", classes, low=1)
    checks.whole("channels", channels, low=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _made(name, make, classes, channels, options)
        if weights is not None:
            state = _from_hub(name, make) if weights == HUB else _from_file(Path(weights))
            _load(network, state, name, str(weights), classes, channels)
    return network.eval()


def input_size(network: nn.Module) -> tuple[int, int] | None:
    """Height and width of the pictures that a network from here was made for; None where it is not tied to any."""
    known: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    own = getattr(getattr(network, "patch_embed", None), "img_size", None)
    own = own or getattr(network, "image_size", None)  # torchvision's vision transformers
    own = own or (known["input_size"][1:] if known.get("fixed_input_size") else None)
    if own is None:
        return None
    return (own, own) if isinstance(own, int) else (int(own[0]), int(own[1]))


def runs_at(network: nn.Module, channels: int, height: int, width: int) -> bool:
    """Whether the network, in evaluation mode, takes pictures of that size."""
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, height, width))
    except Exception:  # whatever a network's own code raises of a size that it does not take
        return False
    return True


def require_known(name: str) -> None:
    """Raise `BadInput` for a name that neither torchvision nor timm has, without making the network."""
    _maker(name)


def names(library: str) -> list[str]:
    """The names of all classifiers of "torchvision" or "timm", without the library's."""
    if library == "torchvision":
        models = _torchvision().models
        return [str(name) for name in models.list_models(module=models)]
    return [str(name) for name in _timm().list_models()]


def _torchvision() -> ModuleType:
    try:
        import torchvision
    except ImportError as error:
        raise BadInput("network", "torchvision", "install it: pip install 'prunefleet[trial]'") from error
    found: ModuleType = torchvision
    return found


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise BadInput("network", "timm", "install it: pip install 'prunefleet[zoo]'") from error
    found: ModuleType = timm
    return found


class _Torchvision:
    """torchvision.models, by one interface with timm."""

    def __init__(self, name: str) -> None:
        self.name, self._models = name, _torchvision().models

    def make(self, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
        if self.name in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": True, **options}
        network: nn.Module = self._models.get_model(self.name, weights=None, num_classes=classes, **options)
        if channels != 3:
            _adapt_stem(network, channels)
        return network

    def state(self) -> State:
        own = self._models.get_model_weights(self.name)
        state: State = own.DEFAULT.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state


class _Timm:
    """timm, by one interface with torchvision."""

    def __init__(self, name: str) -> None:
        self.name, self._timm = name, _timm()

    def make(self, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
        network: nn.Module = self._timm.create_model(
            self.name, pretrained=False, num_classes=classes, in_chans=channels, **options
        )
        return network

    def state(self) -> State:
        network: nn.Module = self._timm.create_model(self.name, pretrained=True)
        return dict(network.state_dict())


Maker = _Torchvision | _Timm
MAKERS: Mapping[str, Callable[[str], Maker]] = {"torchvision": _Torchvision, "timm": _Timm}


def _maker(name: str) -> Maker:
    library, _, short = name.partition("/") if isinstance(name, str) else ("", "", "")
    if library not in MAKERS or not short:
        raise BadInput("network", name, "write torchvision/NAME or timm/NAME, such as torchvision/resnet18")
    known = names(library)
    if short.partition(".")[0] not in known:  # timm's names may go on with the weights': resnet18.a1_in1k
        like = difflib.get_close_matches(short, known, n=3) or [each for each in (checks.near(short, known),) if each]
        remedy = f"did you mean {' or '.join(like)}?" if like else f"{library} has {len(known)} others"
        raise BadInput("network", name, remedy)
    return MAKERS[library](short)


def _made(name: str, make: Maker, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        return make.make(classes, channels, options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        asked = {"classes": classes, "channels": channels, **options}
        raise BadInput("network", name, f"it cannot be made with {asked}: {_brief(error)}") from error


def _adapt_stem(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for images of `channels` channels."""
    name, stem = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, new)


def _from_hub(name: str, make: Maker) -> State:
    try:
        return make.state()
    except Exception as error:  # urllib's, huggingface's, httpx's …
        raise BadInput("weights", HUB, f"{name} cannot be had, give a file instead: {_brief(error)}") from error


def _from_file(path: Path) -> State:
    """The tensors in a file; raises `BadInput` where it holds anything else."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        remedy = f"save the network's state_dict() alone, best as safetensors: {_brief(error)}"
        raise BadInput("weights", str(path), remedy) from error
    except OSError as error:
        raise BadInput("weights", str(path), f"give a file that can be read ({error.strerror})") from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise BadInput("weights", str(path), "save the network's state_dict() alone")
    return {str(key).removeprefix("module."): tensor for key, tensor in found.items()}


def _load(network: nn.Module, state: State, name: str, source: str, classes: int, channels: int) -> None:
    """Put the weights into the network; its head and stem are adapted, all else has to fit."""
    wanted = network.state_dict()
    state = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY)}
    fault = misfit.names(wanted, state)
    for key, new in wanted.items() if not fault else ():
        old = state.get(key, new)
        if old.shape != new.shape:
            adapted = _adapted(old, new, classes, channels)
            fault = fault or (None if adapted is not None else misfit.shape(key, old.shape, new.shape))
            state[key] = new if adapted is None else adapted
    if fault:
        raise BadInput("weights", source, f"give those of {name}: {fault}")
    load_weights(network, {key: state.get(key, new) for key, new in wanted.items()})


def _adapted(old: torch.Tensor, new: torch.Tensor, classes: int, channels: int) -> torch.Tensor | None:
    """A head's or a stem's weights in the shape of `new`; None for other layers."""
    if old.ndim == new.ndim and old.shape[1:] == new.shape[1:] and len(new) == classes:
        return _new_head(new)
    if old.ndim == new.ndim == 4 and len(old) == len(new) and new.shape[1] == channels:
        if channels == 1:
            return old.sum(1, keepdim=True)
        copies = -(-channels // old.shape[1])
        return old.repeat(1, copies, 1, 1)[:, :channels] * (old.shape[1] / channels)
    return None


def _new_head(tensor: torch.Tensor) -> torch.Tensor:
    """A weight or bias as `nn.Linear` starts it: timm draws wider for few classes, and drowns the trained features."""
    bound = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.0
    return torch.empty_like(tensor).uniform_(-bound, bound)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
