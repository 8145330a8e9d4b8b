"""The task `torchvision`: a data set of torchvision by its name, from the user's folder or downloaded when asked."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.tasks.data.divide import SEED, SHARES, divided
from prunefleet.agent.tasks.data.pictures import Part, Picture
from prunefleet.agent.tasks.ready.labelled import DATA, Labelled, located
from prunefleet.agent.tasks.task import digest
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

_FLAG = {"train": {"train": True}, "test": {"train": False}}
_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
_PETS = {"train": {"split": "trainval"}, "test": {"split": "test"}}
_THREE = {**_SPLIT, "validation": {"split": "val"}}
_COUNTRIES = {**_SPLIT, "validation": {"split": "valid"}}
_WHOLE: dict[str, dict[str, object]] = {"train": {}}
SETS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    **dict.fromkeys(("MNIST", "KMNIST", "FashionMNIST", "USPS", "CIFAR10", "CIFAR100"), _FLAG),
    **dict.fromkeys(("SVHN", "STL10", "GTSRB", "Food101"), _SPLIT),
    **dict.fromkeys(("Flowers102", "DTD", "FGVCAircraft", "RenderedSST2"), _THREE),
    "OxfordIIITPet": _PETS,
    "Country211": _COUNTRIES,
    "EuroSAT": _WHOLE,
}
"""By the name of torchvision's class: which arguments give its parts."""


@dataclass(kw_only=True, eq=False)
class TorchvisionSet(Labelled):
    """Official parts are kept; validation and holdout are taken from the official validation part, else from train.

    Where there is no official test part, test is taken from train as well.
    """

    dataset: str
    root: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset not in SETS:
            raise BadInput("options.dataset", self.dataset, checks.choose(self.dataset, SETS, "name one of"))
        if not isinstance(self.download, bool):
            raise BadInput("options.download", self.download, "write true or false")

    @property
    def title(self) -> str:
        """The data set's name."""
        return str(self.dataset)

    @property
    def folder(self) -> Path:
        """Where torchvision looks and downloads to: `root`, else our cache if it may download, else PRUNEFLEET_DATA."""
        if self.root is None and self.download:
            return cache_folder() / "torchvision"
        return located(self.root or ".")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' numbers: names are known to some sets only."""
        return tuple(str(label) for label in range(int(self.images["train"].labels.max()) + 1))

    def parts(self) -> dict[str, Part]:
        """The pictures of each split, by a fixed division of the official parts."""
        opened = {part: self._open(arguments) for part, arguments in SETS[self.dataset].items()}
        labels = {part: _labels(dataset) for part, dataset in opened.items()}
        places = {part: np.random.default_rng(SEED).permutation(len(own)) for part, own in labels.items()}
        missing = {part: share for part, share in SHARES.items() if part not in opened}
        found = {part: (part, each) for part, each in places.items()}
        if "validation" in opened:
            found |= _from("validation", labels, {"holdout": 0.5})
            del missing["holdout"]
        found |= _from("train", labels, missing)
        return {name: _part(opened[source], labels[source], each) for name, (source, each) in found.items()}

    def _open(self, arguments: Mapping[str, object]) -> Any:
        from torchvision import datasets  # slow to import, and seldom needed: pictures are decoded once

        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                kind = getattr(datasets, self.dataset)
                return kind(root=str(self.folder), download=self.download, **arguments)
        except Exception as error:  # each set fails in its own way where files are missing or damaged
            said = " ".join(str(error).split())[:160] or type(error).__name__
            way = "" if self.download else ", or set options.download to true"
            way = f", set {DATA} to where they are{way}" if self.root is None and not os.environ.get(DATA) else way
            where = f"{self.dataset} in {self.folder.absolute()}"
            raise BadInput("data", where, f"put the set's files there whole{way} ({said})") from error

    @property
    def key(self) -> str:
        """Of the set's name and the division: torchvision checks the files."""
        return digest(self.dataset, repr((SEED, SHARES, self.limit)))

    def data_hash(self) -> str:
        """Of the set's name, its division and form, and of the labels."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        labels = [images.labels.numpy().tobytes() for _, images in sorted(self.images.items())]
        return digest(self.key, repr(self.form), *labels)


Placed = tuple[str, "np.ndarray[tuple[int], np.dtype[np.int64]]"]


def _from(source: str, labels: Mapping[str, Sequence[int]], shares: Mapping[str, float]) -> dict[str, Placed]:
    """Parts taken from an official one: where each is from, and at which places."""
    return {part: (source, places) for part, places in divided(labels[source], shares, source).items()}


def _labels(dataset: Any) -> list[int]:
    """A set's labels: known to most, else found by looking at each picture."""
    known = getattr(dataset, "targets", getattr(dataset, "labels", None))
    labels = known if known is not None else [dataset[place][1] for place in range(len(dataset))]
    return [int(label) for label in labels]


def _part(dataset: Any, labels: Sequence[int], places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Part:
    def picture(place: int) -> Picture:
        found: Picture = dataset[int(places[place])][0]
        return found

    return Part(picture, [labels[int(place)] for place in places])
