"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) from wherever this host can get it, checked by SHA-256.

Looked for in order: the folder in PRUNEFLEET_DATA, our cache, Debian's package dataset-fashion-mnist if installed,
torchvision's download, `apt-get download` of that package (which needs no root).
"""

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunefleet.agent.host.cache_files import cache_folder, new_folder, only_one
from prunefleet.objective.errors import BadInput

Array = NDArray[np.uint8]
NAME = "fashion-mnist"
PACKAGE = "dataset-fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SHA256 = {  # of the unpacked files: packers differ in how they compress
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TIMEOUT_S = 20
APT_TIMEOUT_S = 300


class NotHere(Exception):
    """This source cannot give the data; the message says why. The next one is tried."""


def fashion_mnist() -> dict[str, Array]:
    """The four files as arrays: images [n, 28, 28], labels [n]; fetched and cached if need be.

    Safe for processes that start at the same time. Raises `BadInput` naming the file where one is missing or corrupt in
    a folder that the user gave, and naming what was tried where no source has the data.
    """
    given = os.environ.get("PRUNEFLEET_DATA")
    if given and (folder := _given(Path(given).expanduser())):
        return {name: _parsed(name, _checked(folder, name)) for name in SHA256}
    cached = cache_folder() / NAME
    with contextlib.suppress(BadInput):
        return {name: _parsed(name, _checked(cached, name)) for name in SHA256}
    with only_one(cached.with_suffix(".lock")):
        with contextlib.suppress(BadInput):  # another process may have been quicker
            return {name: _parsed(name, _checked(cached, name)) for name in SHA256}
        _fill(cached)
    return {name: _parsed(name, _checked(cached, name)) for name in SHA256}


def _given(root: Path) -> Path | None:
    """Where in the user's folder the files are; None when it has none of them."""
    if not root.is_dir():
        raise BadInput("PRUNEFLEET_DATA", str(root), "name a folder that exists, or leave it unset")
    for folder in (root / NAME, root):
        if any(_file(folder, name) for name in SHA256):
            return folder
    return None


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _checked(folder: Path, name: str) -> bytes:
    """The unpacked content of one file; raises `BadInput` if it is missing or not what it should be."""
    path = _file(folder, name)
    if path is None:
        raise BadInput("data", str(folder / name), "put this file of Fashion-MNIST there, packed (.gz) or not")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise BadInput("data", str(path), f"replace this file, it cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        remedy = f"replace this file, it is corrupt: SHA-256 {found[:12]}… where {SHA256[name][:12]}… is right"
        raise BadInput("data", str(path), remedy)
    return content


def _parsed(name: str, content: bytes) -> Array:
    """IDX (yann.lecun.com/exdb/mnist): 2 zero bytes, type 8, number of dimensions, sizes as big-endian 32-bit."""
    dimensions = content[3]
    sizes = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes.astype(int))


def _fill(target: Path) -> None:
    """Put the four files, unpacked and checked, where `target` is, from the first source that has them."""
    refusals = []
    for name, source in SOURCES.items():
        try:
            with new_folder(target) as folder, source(folder / "fetched") as found:
                for file in SHA256:
                    (folder / file).write_bytes(_checked(found, file))
                shutil.rmtree(folder / "fetched", ignore_errors=True)
            return
        except (NotHere, BadInput) as error:
            refusals.append(f"{name}: {error}")
    remedy = f"install Debian's {PACKAGE}, or set PRUNEFLEET_DATA to a folder with {next(iter(SHA256))}.gz and the rest"
    raise BadInput("data", "fashion_mnist from no source", f"{remedy} ({'; '.join(refusals)})")


@contextlib.contextmanager
def _installed(_: Path) -> Iterator[Path]:
    if not DEBIAN.is_dir():
        raise NotHere(f"no {DEBIAN}")
    yield DEBIAN


@contextlib.contextmanager
def _torchvision(folder: Path) -> Iterator[Path]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        from torchvision.datasets import FashionMNIST  # slow to import, and seldom needed

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            FashionMNIST(str(folder), download=True)
    except (OSError, RuntimeError, ImportError) as error:
        raise NotHere(_brief(error)) from error
    finally:
        socket.setdefaulttimeout(before)
    yield folder / "FashionMNIST" / "raw"


@contextlib.contextmanager
def _apt(folder: Path) -> Iterator[Path]:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NotHere("no apt-get and dpkg-deb on this host")
    folder.mkdir()
    try:
        _run(folder, "apt-get", "download", PACKAGE)
    except NotHere:  # the host's lists of packages are empty or old: private ones need no root
        (folder / "lists" / "partial").mkdir(parents=True)
        private = ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}", "-o", "Debug::NoLocking=1"]
        _run(folder, "apt-get", *private, "update")
        _run(folder, "apt-get", *private, "download", PACKAGE)
    package = next(folder.glob(f"{PACKAGE}_*.deb"))
    _run(folder, "dpkg-deb", "-x", str(package), str(folder / "unpacked"))
    yield folder / "unpacked" / DEBIAN.relative_to("/")


def _run(folder: Path, *command: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=APT_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise NotHere(said[-1] if said else _brief(error)) from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


SOURCES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "installed package": _installed,
    "torchvision": _torchvision,
    "apt-get download": _apt,
}
