"""A network on disk, as a host that only measures knows it: nothing here needs torch."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Exported:
    """A network on disk: `xml` with its weights beside it in `.bin`, `size_bytes` of both, and the shape of its input.

    `precision` is the one to run it at; that of an INT8 network is in the file itself. `network` is the source while it
    is at hand, for runners that take torch's.
    """

    xml: Path
    onnx: Path | None
    precision: str
    size_bytes: int
    input_shape: tuple[int, ...]
    network: "nn.Module | None" = field(default=None, compare=False, repr=False)


def sized(xml: Path, precision: str, input_shape: tuple[int, ...]) -> Exported:
    """The network in the files `xml` and `.bin`."""
    size = xml.stat().st_size + xml.with_suffix(".bin").stat().st_size
    return Exported(xml, None, precision, size, input_shape)


def content_hash(xml: Path) -> str:
    """SHA-256 of a network's two files, `xml` and `.bin`, one after the other."""
    digest = hashlib.sha256(xml.read_bytes())
    with xml.with_suffix(".bin").open("rb") as weights:
        while part := weights.read(2**20):
            digest.update(part)
    return digest.hexdigest()
