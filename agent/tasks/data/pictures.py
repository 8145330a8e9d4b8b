"""Pictures as training wants them: square, of one size, in uint8, decoded once a host and mapped from its disk.

Decoding costs more than training a small network, and a set of pictures may be larger than memory. So they are decoded
into files of the cache and mapped from there: the kernel keeps in memory what is used, once for all trials.
"""

import io
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from prunefleet.agent.host.cache_files import cache_folder, new_folder, only_one
from prunefleet.agent.tasks.classification import Images
from prunefleet.objective.errors import BadInput

Picture = Image.Image
Pixels = NDArray[np.uint8]
LIMIT_GB = 16.0
"""Largest decoded set, on disk, unless the option `limit_gb` says otherwise."""
AT_ONCE = 1024  # pictures queued for decoding
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class PictureFormat:
    """What a picture becomes: `size` × `size` pixels, 1 channel (grey) or 3 (red, green, blue)."""

    size: int
    channels: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 8:
            raise BadInput("options.size", self.size, "give the side of a picture in pixels, at least 8")
        if self.channels not in MODES:
            raise BadInput("options.channels", self.channels, "give 1 (grey) or 3 (red, green, blue)")

    @property
    def bytes(self) -> int:
        """Of one picture."""
        return self.channels * self.size**2


@dataclass(frozen=True)
class Part:
    """The pictures of one split, not decoded yet: `open` gives the picture at a place; `labels` [n]."""

    open: Callable[[int], Picture]
    labels: Sequence[int]


def decoded(
    key: str, form: PictureFormat, parts: Callable[[], Mapping[str, Part]], limit_gb: float = LIMIT_GB
) -> dict[str, Images]:
    """The splits' images, mapped read-only from the cache entry `key`, which is made of `parts()` where it is missing.

    `key` names the content: whoever changes the pictures, their order or their form changes it. Safe for processes that
    start together. Raises `BadInput` where the decoded set is larger than `limit_gb`, or a picture cannot be read, and
    `OSError` where the disk is full.
    """
    folder = cache_folder() / "pictures" / f"{key[:24]}-{form.size}x{form.channels}"
    with only_one(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _make(folder, form, parts(), limit_gb)
    return {file.stem: _mapped(file) for file in sorted(folder.glob("*.npy")) if not file.stem.endswith("-labels")}


def _mapped(file: Path) -> Images:
    labels = torch.from_numpy(np.load(file.with_name(f"{file.stem}-labels.npy")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors; nothing here writes into pixels
        return Images(torch.from_numpy(np.load(file, mmap_mode="r")), labels)


def _make(folder: Path, form: PictureFormat, parts: Mapping[str, Part], limit_gb: float) -> None:
    total = form.bytes * sum(len(part.labels) for part in parts.values())
    if total > limit_gb * 1e9:
        remedy = f"the limit is {limit_gb:g} GB: choose a smaller options.size, or allow more with options.limit_gb"
        raise BadInput("data", f"{total / 1e9:.3g} GB of decoded pictures", remedy)
    for torn in folder.parent.glob(f".{folder.name}.*"):  # left by a process that was killed
        shutil.rmtree(torn, ignore_errors=True)
    with new_folder(folder) as fresh:
        for name, part in parts.items():
            np.save(fresh / f"{name}-labels.npy", np.asarray(part.labels, np.int64))
            _decode(fresh / f"{name}.npy", form, part)


def _decode(file: Path, form: PictureFormat, part: Part) -> None:
    shape = (len(part.labels), form.channels, form.size, form.size)
    with file.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        # A full disk is told now, as an error; a mapped file would end the process when it is written to.
        os.posix_fallocate(out.fileno(), out.tell(), form.bytes * len(part.labels))
    pixels = np.load(file, mmap_mode="r+")

    def write(place: int) -> None:
        pixels[place] = squared(part.open(place), form)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first in range(0, len(pixels), AT_ONCE):
            list(pool.map(write, range(first, min(first + AT_ONCE, len(pixels)))))
    pixels.flush()


def squared(picture: Picture, form: PictureFormat) -> Pixels:
    """[channels, size, size]: the shorter side scaled to `size`, the middle cut out, in the channels asked for."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I;16":  # 16 bits of grey: the upper 8 of them
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    scale = form.size / min(upright.size)
    width, height = (max(form.size, round(scale * side)) for side in upright.size)
    scaled = upright.convert(MODES[form.channels]).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = (width - form.size) // 2, (height - form.size) // 2
    pixels = np.asarray(scaled.crop((left, top, left + form.size, top + form.size)))
    return pixels.reshape(form.size, form.size, form.channels).transpose(2, 0, 1)


def read(path: Path) -> Picture:
    """The picture in a file. Raises `BadInput` naming a file that is missing, damaged, or no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(path.read_bytes()))
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadInput("data", str(path), f"replace or remove this picture, it cannot be read: {said}") from error
    if picture.mode in ("I", "F"):
        raise BadInput("data", str(path), "save this picture with 8 or 16 bits a channel")
    return picture
