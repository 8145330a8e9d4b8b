"""What `prunefleet up` must remember between two calls: one JSON file, readable by its owner alone."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunefleet.objective.errors import BadInput


class State(dict[str, Any]):
    """A dictionary that is on disk whole after every `save`: url, api_key, entity, sweep, seconds per phase."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(json.loads(path.read_text()) if path.exists() else {})

    def save(self, **changes: Any) -> None:
        """Change and write through a temporary file, so that a cut of power leaves the old or the new one."""
        self.update(changes)
        draft = self._path.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Add to the time that `phase` took over all calls so far."""
        spent = dict(self.get("seconds", {}))
        spent[phase] = round(spent.get(phase, 0.0) + seconds, 1)
        self.save(seconds=spent)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time inside towards `phase`, also when it is left early."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add_seconds(phase, time.monotonic() - started)


@contextmanager
def hold(folder: Path) -> Iterator[State]:
    """The state of `folder`, for one `prunefleet up` at a time; raises `BadInput` while another holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "up.lock").open("w")
    except OSError as error:
        raise BadInput("--data", str(folder), f"give a folder that can be written to ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(
                "--data", str(folder), "another `prunefleet up` uses this folder; stop it or give another"
            ) from None
        yield State(folder / "up.json")
