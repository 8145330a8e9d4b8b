"""This package as a wheel, put together again from where it is installed: another host gets the hub's very code.

An editable installation has no such files in its record, so the packages are walked; what describes the package (name,
requirements, extras, commands, licence) is that of the installation.
Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from prunefleet.infra.hub.store.errors import Missing

NAME = "prunefleet"
# In a clone each lies in a folder of its own; installed from a wheel, the first holds the others.
PACKAGES = (NAME, f"{NAME}.agent", f"{NAME}.infra", f"{NAME}.objective")
# Files of an installation that say where it came from, or that a wheel has of its own.
_OWN = frozenset(("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json"))
_WHEEL = "Wheel-Version: 1.0\nGenerator: prunefleet hub\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the same files are the same bytes


@dataclass(frozen=True)
class Wheel:
    """A wheel, by the name that installers read version and tags from."""

    name: str
    content: bytes
    sha256: str


@cache
def wheel() -> Wheel:
    """The wheel, made when it is first asked for. Raises `Missing` where prunefleet is not installed as a package."""
    installed = _installed()
    version = installed.version.replace("-", "_")
    files = dict(sorted(_code())) | dict(_described(installed, f"{NAME}-{version}.dist-info"))
    content = _packed(files, f"{NAME}-{version}.dist-info/RECORD")
    return Wheel(f"{NAME}-{version}-py3-none-any.whl", content, hashlib.sha256(content).hexdigest())


def _installed() -> metadata.Distribution:
    """The installation as pip describes it; what a build leaves in a clone, `….egg-info`, comes first there."""
    for found in metadata.distributions(name=NAME):
        if any(file.match("*.dist-info/METADATA") for file in found.files or ()):
            return found
    raise Missing("wheel: this hub runs from plain files; install prunefleet there with pip")


def _code() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        place = folder_of(package)
        for path in sorted(place.rglob("*")):
            inside = path.relative_to(place)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not path.is_symlink() and not hidden and path.suffix not in (".pyc", ".whl"):
                yield f"{package.replace('.', '/')}/{inside.as_posix()}", path.read_bytes()


def folder_of(package: str) -> Path:
    """Return the folder that a package of ours is loaded from."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _described(installed: metadata.Distribution, folder: str) -> Iterator[tuple[str, bytes]]:
    for file in installed.files or ():
        above, _, inside = file.as_posix().partition(".dist-info/")
        if inside and "/" not in above and inside not in _OWN and ".pyc" not in inside:
            yield f"{folder}/{inside}", file.read_binary()
    yield f"{folder}/WHEEL", _WHEEL.encode()


def _packed(files: dict[str, bytes], record: str) -> bytes:
    lines = [f"{_quoted(name)},sha256={_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    whole = {**files, record: "".join(f"{line}\n" for line in [*lines, f"{record},,"]).encode()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in whole.items():  # the record last, as the specification advises
            entry = zipfile.ZipInfo(name, _FIRST_DAY)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return packed.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _quoted(name: str) -> str:
    """A name as a field of comma-separated values."""
    return f'"{name}"' if "," in name else name
