"""What finished stages of trials left on this host, by content: a repeated candidate answers from it in seconds, an
interrupted one goes on after its last finished stage.

Each is a file of its own: the SHA-256 of all that follows, then a safetensors document with the stage's value as JSON
in its header. Files are written whole or not at all and read at once, so that agents share the folder without waiting
for each other; one that is damaged counts as missing. Beyond the limit in bytes those not used for longest go.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import prunefleet.agent
import prunefleet.objective
from prunefleet.agent.host.cache_files import cache_folder, limit_bytes, replace_file, trim
from prunefleet.agent.tasks.task import digest

FOLDER = "trials"
DIGEST_BYTES = hashlib.sha256().digest_size
HEADER_BYTES = 8  # of a safetensors document: the length of its header
VALUE = "value"


@dataclass(frozen=True)
class Left:
    """What a stage left: a value of plain JSON types, and arrays by name."""

    value: Any
    arrays: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Stages:
    """The finished stages of one candidate; `about` is all that every one of them depends on.

    With a `limit` of 0 bytes nothing is remembered.
    """

    def __init__(self, *about: object, folder: Path | None = None, limit: int | None = None) -> None:
        self._about = (code_hash(), *map(str, about))
        self._folder = folder or cache_folder() / FOLDER
        self._limit = limit_bytes() if limit is None else limit
        self.recalled: list[str] = []
        """The stages that were answered from here."""

    def recall(self, stage: str, *about: object) -> Left | None:
        """What the stage left, if it was finished before and the file is whole; `about`: what else it depends on."""
        if not self._limit:
            return None
        path = self._path(stage, about)
        try:
            left = _read(path.read_bytes())
            os.utime(path)  # used last
        except (OSError, ValueError, KeyError, SafetensorError):
            return None
        self.recalled.append(stage)
        return left

    def keep(self, stage: str, *about: object, value: Any, arrays: Mapping[str, torch.Tensor] | None = None) -> None:
        """Remember what a stage left. A full disk costs the next trial its time and nothing else."""
        if not self._limit:
            return
        content = save(
            {key: each.clone().contiguous() for key, each in (arrays or {}).items()}, {VALUE: json.dumps(value)}
        )
        if len(content) > self._limit:
            return
        with contextlib.suppress(OSError):
            replace_file(self._path(stage, about), hashlib.sha256(content).digest() + content)
            trim(self._folder, self._limit)

    def _path(self, stage: str, about: tuple[object, ...]) -> Path:
        return self._folder / f"{stage}-{digest(*self._about, stage, *map(str, about))[:32]}"


def _read(content: bytes) -> Left:
    """Raises `ValueError` for a file that is not as it was written."""
    told, document = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(document).digest() != told:
        raise ValueError("damaged")
    length = int.from_bytes(document[:HEADER_BYTES], "little")
    header = json.loads(document[HEADER_BYTES : HEADER_BYTES + length])
    return Left(json.loads(header["__metadata__"][VALUE]), load(document))


def bytes_of(paths: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """The content of files as arrays of bytes."""
    return {name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for name, path in paths.items()}


@cache
def code_hash() -> str:
    """Hash of the code that trials run: results of another version are not taken for its own."""
    rooms = [Path(place) for room in (prunefleet.agent, prunefleet.objective) for place in room.__path__]
    return digest(*(path.read_bytes() for room in rooms for path in sorted(room.rglob("*.py"))))
