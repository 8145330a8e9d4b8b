"""What may go: files that nothing refers to, artifacts that were never finished, and old runs where that is asked.

Nothing of a run that stays is thinned out: its history, console and system metrics are what it is kept for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from prunefleet.infra.hub.artifacts import edits
from prunefleet.infra.hub.runs import runs
from prunefleet.infra.hub.store import integrity, old_runs
from prunefleet.infra.hub.store.blobs import Blobs, stored
from prunefleet.infra.hub.store.database import Connection, Store

DAY_S = 86_400.0
FRESH_S = 3600.0  # a file that arrived within this time is about to be referred to
ABANDONED_DAYS = 7.0  # upload addresses end after hours, so nobody is still at work on such an artifact


@dataclass(frozen=True)
class Wish:
    """What to remove; `runs_older_than` in days, None for no runs. With `dry_run` nothing is removed."""

    dry_run: bool = False
    abandoned_after: float = ABANDONED_DAYS
    runs_older_than: float | None = None


@dataclass(frozen=True)
class Removed:
    """How much went, or would go: runs with the bytes they logged, unfinished artifacts, files with their bytes."""

    dry_run: bool
    runs: int
    run_bytes: int
    artifacts: int
    files: int
    file_bytes: int

    @property
    def lines(self) -> list[str]:
        """In words."""
        verb = "would remove" if self.dry_run else "removed"
        return [
            f"{verb} {self.runs} runs with {self.run_bytes} bytes of lines (the database uses their room again)",
            f"{verb} {self.artifacts} artifacts that were never finished",
            f"{verb} {self.files} files that nothing refers to, {self.file_bytes} bytes",
        ]


def gc(store: Store, blobs: Blobs, wish: Wish, now: float) -> Removed:
    """Remove what the wish says, safely while the hub serves; not while a backup copies files."""
    artifacts_before = now - wish.abandoned_after * DAY_S
    runs_before = None if wish.runs_older_than is None else now - wish.runs_older_than * DAY_S
    with store.read() as connection:
        artifacts = old_runs.abandoned_artifacts(connection, artifacts_before)
        old = [] if runs_before is None else old_runs.old_runs(connection, runs_before)
        logged = old_runs.logged_bytes(connection, old)
    if not wish.dry_run:
        for artifact_id in artifacts:
            store.write(partial(_forget_artifact, artifact_id=artifact_id, before=artifacts_before))
        for run_id in old:
            store.write(partial(_forget_run, run_id=run_id, before=runs_before or 0.0))
    files, freed = _clear(store, blobs, wish, old, artifacts)
    return Removed(wish.dry_run, len(old), logged, len(artifacts), files, freed)


def _forget_run(connection: Connection, run_id: int, before: float) -> None:
    """One a transaction, so that nobody waits long; whoever came to life meanwhile stays."""
    if old_runs.old_runs(connection, before, run_id):
        runs.delete(connection, run_id)


def _forget_artifact(connection: Connection, artifact_id: int, before: float) -> None:
    if old_runs.abandoned_artifacts(connection, before, artifact_id):
        edits.delete(connection, artifact_id, with_aliases=True)


def _clear(store: Store, blobs: Blobs, wish: Wish, old: list[int], artifacts: list[int]) -> tuple[int, int]:
    """Number and bytes of the files that go.

    Files are listed before references are read: what is referred to later was uploaded later, and is fresh.
    """
    oldest = time.time() - FRESH_S
    present = [each for each in stored(blobs.folder) if each.uploaded_at <= oldest]
    with integrity.opened(store.folder) as connection:
        # Rows that have gone refer to nothing; in a dry run they are still there and must be left out.
        gone = (old, artifacts) if wish.dry_run else ([], [])
        wanted = integrity.references(connection, *gone)
    orphans = [each for each in present if each.sha256 not in wanted]
    if wish.dry_run:
        return len(orphans), sum(each.size for each in orphans)
    freed = [size for each in orphans if (size := blobs.remove(each.sha256, oldest)) is not None]
    return len(freed), sum(freed)
