"""Which code a host runs for a sweep that names the task's: its own if that is the same, else what the sweep carries.

A sweep names code by the SHA-256 of `Code` (source.py): as an artifact, `code-<sha256>:v0`, or as the hash alone
where code may not leave the host that planned. What is fetched is kept in the cache: an archive by its hash, and a
folder with its files, which modules are loaded from.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prunefleet.agent.host.cache_files import cache_folder, new_folder, only_one, replace_file
from prunefleet.agent.tasks.baseline import ArtifactStore
from prunefleet.agent.tasks.code.source import ARCHIVE, Code, code_of
from prunefleet.agent.tasks.registry import module_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.sweepfile import code_sha256

REFUSE = "PRUNEFLEET_NO_REMOTE_CODE"
KIND = "code"
FOLDER = "code"
SHOWN = 12
UPLOADED = "uploaded with the sweep; every host runs it"
NOT_UPLOADED = "not uploaded; copy it to every other host, or set `upload: {value: all}`"


@dataclass(frozen=True)
class Standing:
    """What a host would run, in words: its `own` code, or what it has `kept`, or else what it would have to fetch."""

    told: str
    own: bool = False
    kept: Code | None = None

    @property
    def here(self) -> bool:
        """Whether nothing is to be fetched."""
        return self.own or self.kept is not None


def refused() -> bool:
    """Whether this host runs no code that a sweep brings."""
    return os.environ.get(REFUSE, "0") not in ("", "0")


def standing(task: str, reference: str) -> Standing:
    """What this host would run for a sweep with this constant `code`; nothing is fetched, nothing run.

    Raises `BadInput` where it has not the sweep's code and may not fetch it.
    """
    sha256 = code_sha256(reference)
    own, short = _own(task), sha256[:SHOWN]
    if own and own.sha256 == sha256:
        return Standing(f"{own.described()} here is the sweep's, {short}", own=True)
    field, here = f"code of {task}", own.sha256[:SHOWN] if own else "none"
    if refused():
        remedy = f"bring the sweep's, {short}, to this host, which runs none that a sweep brings: {REFUSE} is set"
        raise BadInput(field, here, remedy)
    if kept := _kept(sha256):
        return Standing(f"the sweep's, {short}, is in this host's cache", kept=kept)
    if reference == sha256:
        raise BadInput(field, here, f"bring the sweep's, {short}, to this host: without `upload: all` it carries none")
    return Standing(f"the sweep's, {short}, would be fetched and run here")


def provide(task: str, reference: str, store: ArtifactStore | None) -> Path | None:
    """The folder with the code to run for a sweep with this constant `code`, fetched if need be; None: this host's own.

    Says in one line where other code than this host's own is run. Raises `BadInput` as `standing` does, and where what
    is fetched is not what the sweep names.
    """
    sha256 = code_sha256(reference)
    with only_one(_lock(sha256)):  # agents that start together fetch it once
        found = standing(task, reference)
        if found.own:
            return None
        folder = _laid_out(found.kept or _added(_fetched(sha256, reference, store)))
    if own := _own(task):
        print(f"code of {task}: the sweep's, {sha256[:SHOWN]}, is run, not {own.sha256[:SHOWN]} of here", flush=True)
    return folder


def folder_of(found: Standing) -> Path | None:
    """The folder with the code that a host would run; None where that is its own, or is not here yet."""
    if found.kept is None:
        return None
    with only_one(_lock(found.kept.sha256)):
        return _laid_out(found.kept)


def keep(code: Code) -> None:
    """Keep code that a sweep was planned with: its trials here run it even when this host's own has changed."""
    with only_one(_lock(code.sha256)):
        _laid_out(_added(code))


def publish(store: ArtifactStore, code: Code) -> str:
    """Log the code as an artifact unless the project has it; returns how a sweep names it."""
    name = f"{KIND}-{code.sha256}"
    with tempfile.TemporaryDirectory() as folder:
        if store.fetch(name, Path(folder)) and _holds(Path(folder), code):
            return f"{name}:v0"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ARCHIVE
        file.write_bytes(code.packed())
        version = store.publish(name, KIND, [file], {"sha256": code.sha256, "files": sorted(code.files)})
    return f"{name}:{version}"


def _own(task: str) -> Code | None:
    """This host's own code of the task, if it has it whole."""
    try:
        return code_of(module_of(task))
    except (BadInput, OSError):
        return None


def _holds(folder: Path, code: Code) -> bool:
    try:
        return _unpacked(folder, "").sha256 == code.sha256
    except BadInput:
        return False


def _fetched(sha256: str, reference: str, store: ArtifactStore | None) -> Code:
    with tempfile.TemporaryDirectory() as folder:
        if store is None or not store.fetch(reference, Path(folder)):
            raise BadInput("code", reference, "the project has no such artifact: run `prunefleet plan` again")
        code = _unpacked(Path(folder), reference)
    if code.sha256 != sha256:
        remedy = f"what the project has under this name is {code.sha256[:SHOWN]}: run `prunefleet plan` again"
        raise BadInput("code", reference, remedy)
    return code


def _unpacked(folder: Path, reference: str) -> Code:
    file = folder / ARCHIVE
    if not file.is_file():
        raise BadInput("code", reference, f"this artifact has no {ARCHIVE}: run `prunefleet plan` again")
    return Code.unpacked(file.read_bytes())


def _folder() -> Path:
    return cache_folder() / FOLDER


def _lock(sha256: str) -> Path:
    return _folder() / f"{sha256}.lock"


def _archive(sha256: str) -> Path:
    return _folder() / f"{sha256}.zip"


def _kept(sha256: str) -> Code | None:
    """The code of that hash that this host has fetched or planned with, if the archive is whole."""
    try:
        code = Code.unpacked(_archive(sha256).read_bytes())
    except (BadInput, OSError):
        return None
    return code if code.sha256 == sha256 else None


def _added(code: Code) -> Code:
    replace_file(_archive(code.sha256), code.packed())
    return code


def _laid_out(code: Code) -> Path:
    """The code's folder, its files as they should be; what else is there was made of them, or by them."""
    folder = _folder() / code.sha256
    if not code.is_in(folder):
        with new_folder(folder) as fresh:
            code.write(fresh)
    return folder
