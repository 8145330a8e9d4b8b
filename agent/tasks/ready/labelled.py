"""Labelled pictures and a network by its name: what the tasks that take options have in common."""

import contextlib
import difflib
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from prunefleet.agent.tasks.classification import Classification, Images
from prunefleet.agent.tasks.data import pictures
from prunefleet.agent.tasks.data.pictures import Part, PictureFormat
from prunefleet.agent.tasks.networks.efficientnet_lite import efficientnet_lite0
from prunefleet.agent.tasks.networks.resnet import ResNet9
from prunefleet.agent.tasks.networks.zoo import classifier, input_size, names, require_known, runs_at
from prunefleet.agent.tasks.task import Budget
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

SIDES = (32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 299, 384)
"""Sizes of pictures that networks are often made for, tried where one does not run."""
DATA = "PRUNEFLEET_DATA"
OWN = ("resnet9", "efficientnet_lite0")
"""Architectures that are neither torchvision's nor timm's."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(kw_only=True, eq=False)
class Labelled(Classification):
    """A classification whose fields are the options of a sweep file; docs/task.md says what each one is.

    A subclass gives `title`, `classes`, `parts` and `key`.
    """

    architecture: str = "resnet18"
    weights: str | None = None
    size: int = 64
    channels: int = 3
    epochs: float = 10
    dense_lr: float = 0.1
    lr: float = 0.05
    batch_size: int = 64
    flip: bool = True
    flip_vertical: bool = False
    shift: int = 4
    balanced: bool = False
    limit: int | None = None
    limit_gb: float = pictures.LIMIT_GB
    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5", "balanced_accuracy")  # type: ignore[misc]

    def __post_init__(self) -> None:
        self.form = PictureFormat(self.size, self.channels)
        for name in ("dense_lr", "lr", "limit_gb"):
            checks.positive(f"options.{name}", getattr(self, name))
        checks.number("options.epochs", self.epochs, low=0)
        checks.whole("options.batch_size", self.batch_size, low=2)
        checks.whole("options.shift", self.shift)
        checks.text("options.architecture", self.architecture)
        if self.limit is not None:
            checks.whole("options.limit", self.limit, low=4)
        self.mean, self.std = normalised(self.architecture, self.channels)
        self.name = plain(f"{self.title}_{self.architecture}_{self.size}")

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the data, for that of the task."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""

    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """The pictures of each split, in an order that is random but fixed."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Hash of what `parts` gives, known without decoding it."""

    def dense_budget(self) -> Budget:
        """As the options say; no epochs for a network that comes trained."""
        return Budget(epochs=self.epochs, lr=self.dense_lr)

    def splits(self) -> Mapping[str, Images]:
        """The decoded pictures; no more than `limit` of each split."""
        return pictures.decoded(self.key, self.form, self._limited, self.limit_gb)

    def _limited(self) -> dict[str, Part]:
        return {name: Part(part.open, part.labels[: self.limit]) for name, part in self.parts().items()}

    def network(self) -> nn.Module:
        """The architecture with outputs for the classes: initialised from a fixed seed, or with its weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = by_name(self.architecture, len(self.classes), self.channels, self.weights)
        wanted = input_size(network)
        if wanted not in (None, (self.size, self.size)) and (wrong := self.wrong_size(network)):
            raise wrong
        return network

    def wrong_size(self, network: nn.Module) -> BadInput | None:
        """What to raise for a `size` that the network does not take, with one that it takes; None where it does."""
        if runs_at(network, self.channels, self.size, self.size):
            return None
        known = input_size(network)
        sizes = [known] if known else [(side, side) for side in SIDES if side > self.size]
        takes = next((each for each in sizes if runs_at(network, self.channels, *each)), None)
        short = self.architecture.rpartition("/")[2]
        remedy = f"{short} takes {takes[0]} × {takes[1]}" if takes else f"{short} does not run at this size"
        return BadInput("options.size", self.size, remedy)


def normalised(architecture: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel of what an architecture's published weights were trained on."""
    if architecture == "efficientnet_lite0":
        return (0.5,) * channels, (0.5,) * channels
    return IMAGENET if channels == 3 else ((0.5,), (0.25,))


def by_name(name: str, classes: int, channels: int, weights: str | None) -> nn.Module:
    """A network by its name; raises `BadInput` for one that nobody has."""
    if name == "resnet9":
        return ResNet9(channels, classes)
    if name == "efficientnet_lite0":
        return efficientnet_lite0(classes, channels, weights)
    with _as_options(name):
        return classifier(_of_the_zoo(name), classes, channels, weights)


def require_architecture(name: str) -> None:
    """Raise `BadInput` for an architecture that nobody has, without making it."""
    if name not in OWN:
        with _as_options(name):
            require_known(_of_the_zoo(name))


def _of_the_zoo(name: str) -> str:
    return name if "/" in name else f"torchvision/{name}"


@contextlib.contextmanager
def _as_options(name: str) -> Iterator[None]:
    """Name what the zoo refuses as a sweep file has it."""
    try:
        yield
    except BadInput as error:
        if error.field != "network":
            raise BadInput(
                {"weights": "options.weights"}.get(error.field, error.field), error.got, error.remedy
            ) from error
        like = [] if "/" in name else difflib.get_close_matches(name, (*OWN, *names("torchvision")), n=3)
        remedy = f"did you mean {' or '.join(like)}?" if like else error.remedy
        raise BadInput("options.architecture", name, remedy) from error


def located(root: str) -> Path:
    """A folder of data: as given where that is absolute, else below PRUNEFLEET_DATA, or here where that is not set."""
    return Path(os.environ.get(DATA) or ".").expanduser() / Path(root).expanduser()


def no_folder(root: str) -> str:
    """Return what to do about a folder of data that is not there: where it was looked for, and where it may be."""
    if Path(root).expanduser().is_absolute():
        return "no such folder here: name one that is there"
    data = os.environ.get(DATA)
    if data:
        return f"no such folder beside the sweep file or in {DATA}, {data}: put it there, or give a full path"
    return (
        f"no such folder beside the sweep file, and {DATA} is not set: "
        f"set it to the folder that holds {root!r}, or give a full path"
    )


def plain(text: str) -> str:
    """`text` with nothing but letters, digits and underscores."""
    return re.sub(r"[^_a-zA-Z0-9]+", "_", text).strip("_").lower()
