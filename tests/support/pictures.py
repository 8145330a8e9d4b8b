"""Made-up pictures on disk: folders by class, a set of torchvision's, and a package like elpv-dataset."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from support.idx import idx

RANDOM = np.random.default_rng(0)


def picture(label: int, size: int = 24, mode: str = "RGB") -> Image.Image:
    """Noise, brighter for a larger label; a little wider than high."""
    channels = {"L": (), "RGB": (3,)}[mode]
    pixels = RANDOM.integers(0, 100, (size, size + 4, *channels)) + 40 * label
    return Image.fromarray(pixels.astype(np.uint8))


def folders(root: Path, count: int = 12, classes: tuple[str, ...] = ("crack", "good"), suffix: str = ".png") -> Path:
    """`count` pictures of each class, root/class/name.png."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(label).save(root / name / f"{number:03}{suffix}")
    return root


def mnist(root: Path, train: int = 200, test: int = 60) -> Path:
    """Files in the format of MNIST, where torchvision's class of that name looks for them."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = (labels[:, None, None] * 20 + RANDOM.integers(0, 50, (count, 28, 28))).astype(np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{name}-ubyte").write_bytes(idx(values))
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(idx(values), 1))
    return root


def elpv(folder: Path, count: int = 160) -> Path:
    """A package like elpv-dataset in a folder; returns its list of cells."""
    data = folder / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data.parent / "__init__.py").write_text("")
    rows = []
    for number in range(count):
        probability = (0.0, 0.0, 0.3333333333333333, 0.6666666666666666, 1.0)[number % 5]
        name = f"images/cell{number:04}.png"
        picture(round(2 * probability), 40, "L").save(data / name)
        rows.append(f"{name}  {probability}  {('mono', 'poly')[number % 2]}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    return data / "labels.csv"
