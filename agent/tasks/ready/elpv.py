"""The task `elpv`: which solar cells are defective, by their electroluminescence; 2,624 pictures, so folds in turn.

Buerhop-Lopez et al. 2018, Deitsch et al. 2019 and 2021; the pictures are under CC-BY-NC-SA-4.0, which excludes
commercial use. They come with PyPI's elpv-dataset (the extra `elpv`), not with this package.
"""

import importlib.util
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from prunefleet.agent.host.cache_files import sha256_of
from prunefleet.agent.tasks.data import pictures
from prunefleet.agent.tasks.data.divide import SEED, folded
from prunefleet.agent.tasks.data.pictures import Part
from prunefleet.agent.tasks.networks import efficientnet_lite
from prunefleet.agent.tasks.ready.labelled import Labelled
from prunefleet.agent.tasks.task import digest
from prunefleet.objective.errors import BadInput

PACKAGE = "elpv_dataset"
LICENCE = "ELPV: pictures under CC-BY-NC-SA-4.0, not for commercial use; the ImageNet weights state no licence"
DEFECTIVE = 0.5
"""A cell counts as defective from this probability on: 821 of 2,624 do, 31 %."""


@dataclass(kw_only=True, eq=False)
class ELPV(Labelled):
    """Two classes of unequal size, EfficientNet-Lite0 with ImageNet's weights, and the metric of both classes alike.

    `fold` of `folds` is tested, the next one validates, the one after is held out. Folds are alike in the probability
    of a defect and in the type of cell; which of 44 modules a cell is from is not told, so that parts share modules.
    """

    fold: int = 0
    folds: int = 8
    architecture: str = "efficientnet_lite0"
    weights: str | None = efficientnet_lite.WEIGHTS
    size: int = 96
    channels: int = 1
    epochs: float = 8
    dense_lr: float = 0.02
    lr: float = 0.01
    batch_size: int = 32
    flip_vertical: bool = True
    balanced: bool = True
    metrics: ClassVar[tuple[str, ...]] = ("balanced_accuracy", "recall", "precision", "top1")  # type: ignore[misc]
    calibrated: ClassVar[int] = 256  # type: ignore[misc]  # of every pruned network: it takes seconds
    title: ClassVar[str] = "elpv"
    classes: ClassVar[tuple[str, ...]] = ("functional", "defective")

    @cached_property
    def cells(self) -> list[tuple[Path, float, str]]:
        """File, probability of a defect, and type (mono or poly) of each cell, in the order of the data set.

        Raises `BadInput` where the package is missing or its list is damaged.
        """
        file = labels_file()
        try:
            rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
            return [(file.parent / name, float(probability), kind) for name, probability, kind in rows]
        except (OSError, ValueError) as error:
            raise BadInput("data", str(file), f"install elpv-dataset again, its list is damaged: {error}") from error

    def parts(self) -> dict[str, Part]:
        """The cells of each split."""
        print(LICENCE, file=sys.stderr)
        kinds = sorted({(probability, kind) for _, probability, kind in self.cells})
        strata = [kinds.index((probability, kind)) for _, probability, kind in self.cells]
        return {name: self._part(list(map(int, own))) for name, own in folded(strata, self.fold, self.folds).items()}

    def _part(self, places: list[int]) -> Part:
        labels = [int(self.cells[place][1] >= DEFECTIVE) for place in places]
        return Part(lambda place: pictures.read(self.cells[places[place]][0]), labels)

    @property
    def key(self) -> str:
        """Of the list of cells and the fold."""
        return digest(self._list_hash, repr((SEED, self.fold, self.folds, self.limit)))

    @cached_property
    def _list_hash(self) -> str:
        return sha256_of(labels_file())

    def data_hash(self) -> str:
        """Of the list of cells, the fold, and the pictures' form."""
        return digest(self.key, repr(self.form))


def labels_file() -> Path:
    """The list of cells; raises `BadInput` where the package is missing."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise BadInput("data", "elpv", f"install the pictures: {efficientnet_lite.INSTALL}")
    return Path(found.submodule_search_locations[0]) / "data" / "labels.csv"
