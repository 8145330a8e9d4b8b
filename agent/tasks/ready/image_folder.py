"""The task `image_folder`: pictures in folders named by their class, divided by the user or by a fixed seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunefleet.agent.tasks.data import pictures
from prunefleet.agent.tasks.data.divide import SEED, SHARES, divided
from prunefleet.agent.tasks.data.pictures import Part
from prunefleet.agent.tasks.metrics import OF_POSITIVE
from prunefleet.agent.tasks.ready.labelled import Labelled, located, no_folder
from prunefleet.agent.tasks.task import digest
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "holdout": ("holdout",),
    "test": ("test",),
}
READ_FOR_HASH = 200
"""Files whose content is part of the hash of the data; of all others their names and sizes are."""


@dataclass(frozen=True)
class FolderImage:
    """A picture's file, its name below the root, its class, and what the file system knows of it."""

    path: Path
    name: str
    label: int
    bytes: int
    changed_ns: int


@dataclass(kw_only=True, eq=False)
class ImageFolder(Labelled):
    """root/train|val|test/class/*.png, or root/class/*.png; parts that are not there are taken from the others.

    With a `positive` class there are recall, precision and f1 of it too.
    """

    root: str
    positive_class: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positive_class is not None:
            self.metrics = (*OF_POSITIVE, *type(self).metrics)  # type: ignore[misc]

    @property
    def title(self) -> str:
        """The folder's name."""
        return f"folder_{Path(self.root).name}"

    @property
    def _folder(self) -> Path:
        """The root's path on this host. Raises `BadInput` where there is no such folder."""
        checks.text("options.root", self.root)
        root = located(self.root)
        if not root.is_dir():
            raise BadInput("options.root", self.root, no_folder(self.root))
        return root

    @cached_property
    def given(self) -> dict[str, list[FolderImage]]:
        """What the user divided, by part; all under "" where that is nothing. Raises `BadInput` for what is missing."""
        root = self._folder
        folders = {part: root / name for part, names in FOLDERS.items() for name in names if (root / name).is_dir()}
        if folders and "train" not in folders:
            raise BadInput("options.root", str(root), f"put a folder train beside {', '.join(sorted(folders))}")
        return {part: _listed(root, folder, self.classes) for part, folder in (folders or {"": root}).items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the folders of the training part, in alphabetical order; raises `BadInput` for fewer than two."""
        root = self._folder
        folder = root / "train" if (root / "train").is_dir() else root
        found = tuple(_folders(folder))
        if len(found) < 2:
            raise BadInput("data", str(folder), f"give two classes or more, a folder each: there are {len(found)}")
        if self.positive_class is not None and self.positive_class not in found:
            raise BadInput(
                "options.positive_class", self.positive_class, checks.choose(self.positive_class, found, "name one of")
            )
        return found

    @property
    def positive(self) -> int:  # type: ignore[override]
        """The class that recall, precision and f1 are about."""
        return 1 if self.positive_class is None else self.classes.index(self.positive_class)

    @cached_property
    def entries(self) -> dict[str, list[FolderImage]]:
        """The files of each split; raises `BadInput` where there are too few."""
        given = dict(self.given)
        taken = {part: share for part, share in SHARES.items() if part not in given}
        if not given.keys() - {""}:
            return self._divided(given[""], taken, "train")
        if "validation" in given and "holdout" in taken:
            given |= self._divided(given["validation"], {"holdout": 0.5}, "validation")
            del taken["holdout"]
        given |= self._divided(given["train"], taken, "train")
        return {part: self._shuffled(given[part]) for part in FOLDERS}

    def _divided(
        self, entries: Sequence[FolderImage], shares: Mapping[str, float], rest: str
    ) -> dict[str, list[FolderImage]]:
        labels = [entry.label for entry in entries]
        for label, count in enumerate(np.bincount(labels, minlength=len(self.classes))):
            if count <= len(shares):
                where = f"{count} pictures of class {self.classes[label]}"
                parts = ", ".join((rest, *shares))
                raise BadInput("data", where, f"give at least {len(shares) + 1}, one for each of {parts}")
        return {part: [entries[place] for place in places] for part, places in divided(labels, shares, rest).items()}

    def _shuffled(self, entries: Sequence[FolderImage]) -> list[FolderImage]:
        return [entries[place] for place in np.random.default_rng(SEED).permutation(len(entries))]

    def parts(self) -> dict[str, Part]:
        """The pictures of each split."""

        def part(entries: Sequence[FolderImage]) -> Part:
            return Part(lambda place: pictures.read(entries[place].path), [entry.label for entry in entries])

        return {name: part(entries) for name, entries in self.entries.items()}

    @property
    def key(self) -> str:
        """Of every file's name, size and time, part and label."""
        rows = [
            repr((part, entry.name, entry.label, entry.bytes, entry.changed_ns))
            for part, entries in self.entries.items()
            for entry in entries
        ]
        return digest(*rows, repr(self.limit))

    def data_hash(self) -> str:
        """Of every file's name, size, part and label, and of some files' content: equal where the files are."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        rows = [(part, entry) for part, entries in self.entries.items() for entry in entries]
        names = [repr((part, entry.name, entry.label, entry.bytes)) for part, entry in rows]
        read = [rows[place][1].path.read_bytes() for place in np.linspace(0, len(rows) - 1, READ_FOR_HASH).astype(int)]
        return digest(*names, *read, repr((self.form, self.limit)))


def _folders(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _listed(root: Path, folder: Path, classes: Sequence[str]) -> list[FolderImage]:
    """The pictures in the classes' folders below `folder`; raises `BadInput` where those are not the classes."""
    found = _folders(folder)
    for name in {*found} ^ {*classes}:
        where = "is no class of the training part" if name in found else "is missing here, or needs removing there"
        raise BadInput("data", str(folder / name), f"give each part the same classes: {name} {where}")
    return [entry for label, name in enumerate(classes) for entry in _pictures(root, folder / name, label)]


def _pictures(root: Path, folder: Path, label: int) -> list[FolderImage]:
    """The pictures in one class's folder and those below it."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            found.append(FolderImage(path, str(path.relative_to(root)), label, *_known(path)))
    if not found:
        raise BadInput("data", str(folder), "put pictures there (.png, .jpg, …), or remove this class")
    return found


def _known(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change."""
    try:
        known = path.stat()
    except OSError as error:
        raise BadInput("data", str(path), f"replace or remove this picture: {error.strerror}") from error
    return known.st_size, known.st_mtime_ns
