"""The files of runs, and every byte that arrives for a run or an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prunefleet.infra.hub.artifacts import log
from prunefleet.infra.hub.artifacts.names import check_file
from prunefleet.infra.hub.store import files, statements
from prunefleet.infra.hub.store.blobs import Blob, Blobs
from prunefleet.infra.hub.store.database import Connection, Store, execute
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.file_rows import FileOwner, FileRow


class Files:
    """Reads and writes of one store's run files; `keep` takes in uploads of all kinds."""

    def __init__(self, store: Store, blobs: Blobs, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self.blobs = blobs
        self._clock = clock

    def listed(self, run_id: int, names: Sequence[str] = (), pattern: str | None = None) -> list[FileRow]:
        """A run's files by name: all, those named, or those like an SQL pattern (`media/%`)."""
        with self._store.read() as connection:
            return files.run_files(connection, run_id, list(names), pattern)

    def count(self, run_id: int) -> int:
        """How many files a run has."""
        with self._store.read() as connection:
            return files.run_file_count(connection, run_id)

    def read(self, run_id: int, name: str) -> bytes:
        """The content of one file of a run. Raises `Missing`."""
        found = self.listed(run_id, [name])
        if not found or found[0].sha256 is None:
            raise Missing(f"file: the run has none called {name[:80]!r}")
        return self.blobs.read(found[0].sha256)

    def find(self, owner: FileOwner, owner_id: int, name: str) -> FileRow | None:
        """A file of a run, of an artifact, or its manifest; None where its owner has none of that name any more."""
        with self._store.read() as connection:
            if owner is FileOwner.RUN:
                return next(iter(files.run_files(connection, owner_id, [name], None)), None)
            if owner is FileOwner.ARTIFACT:
                return files.artifact_file(connection, owner_id, name)
            artifact = files.artifact(connection, owner_id)
            return files.manifest_file(artifact) if artifact else None

    def keep(self, owner: FileOwner, owner_id: int, name: str, blob: Blob) -> None:
        """Note what was uploaded for a run, an artifact or its manifest. Raises `Missing` when that is gone."""
        now = self._clock()
        if owner is FileOwner.RUN:
            self._store.write(lambda c: _keep(c, owner_id, check_file(name), blob, now))
        elif owner is FileOwner.ARTIFACT:
            self._store.write(lambda c: log.keep_file(c, owner_id, name, blob, now))
        else:
            self._store.write(lambda c: log.keep_manifest(c, owner_id, blob, now))

    def delete(self, file_ids: Sequence[int], project_id: int | None = None) -> None:
        """Forget files of runs, of that project alone where one is given; those that are gone already are no error."""
        sql = """
        DELETE FROM run_file WHERE id = :id
        AND (:p IS NULL OR run_id IN (SELECT id FROM run WHERE project_id = :p))
        """

        def work(connection: Connection) -> None:
            for file_id in file_ids:
                execute(connection, sql, id=file_id, p=project_id)

        self._store.write(work)


def _keep(connection: Connection, run_id: int, name: str, blob: Blob, now: float) -> None:
    if statements.run(connection, run_id) is None:
        raise Missing("run: it is not here; it may have been deleted")
    sql = """
    INSERT INTO run_file (run_id, name, sha256, md5, size, updated_at)
    VALUES (:run_id, :name, :sha256, :md5, :size, :now)
    ON CONFLICT (run_id, name) DO UPDATE
    SET sha256 = excluded.sha256, md5 = excluded.md5, size = excluded.size, updated_at = excluded.updated_at
    """
    execute(connection, sql, run_id=run_id, name=name, sha256=blob.sha256, md5=blob.md5, size=blob.size, now=now)
