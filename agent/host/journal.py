"""Finished results on disk, one JSON line each: a killed process loses at most the line it was writing."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Self


class Journal:
    """Results by key in the file `path`, which one process holds at a time: another waits, then finds all.

    Use as a context manager. Values are JSON.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._results = dict(self._read())

    def _read(self) -> list[tuple[str, Any]]:
        self._file.seek(0)
        whole, _, torn = self._file.read().rpartition(b"\n")
        if torn:
            self._file.truncate(len(whole) + 1 if whole else 0)
        return [(entry["key"], entry["value"]) for entry in map(json.loads, whole.splitlines())]

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> Any:
        return self._results[key]

    def add(self, key: str, value: Any) -> None:
        """Remember a result; it is on disk when this returns."""
        self._file.write(json.dumps({"key": key, "value": value}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._results[key] = value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
