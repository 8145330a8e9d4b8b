"""Files in Fashion-MNIST's format with made-up images."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from prunefleet.agent.tasks.data import downloads
from prunefleet.agent.tasks.ready import fashion_mnist

COUNTS = {"train": 600, "t10k": 200}


def idx(values: np.ndarray) -> bytes:
    """An array of uint8 in the IDX format."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def write(folder: Path, packed: bool = True) -> dict[str, str]:
    """Write the four files; returns the SHA-256 of their content by name."""
    random, sums = np.random.default_rng(0), {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in COUNTS.items():
        labels = random.integers(0, 10, count, np.uint8)
        images = (labels[:, None, None] * 20 + random.integers(0, 50, (count, 28, 28))).astype(np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(values)
            sums[f"{part}-{name}-ubyte"] = hashlib.sha256(content).hexdigest()
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, 1) if packed else content)
    return sums


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, packed: bool = True) -> None:
    """Let made-up files in `folder` be the true ones for this test."""
    monkeypatch.setattr(downloads, "SHA256", write(folder, packed))
    monkeypatch.setattr(fashion_mnist, "HELD_BACK", 100)
