"""Artifacts, as the wire and the pages ask for them: each call is one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prunefleet.infra.hub.artifacts import edits, log, manifests
from prunefleet.infra.hub.artifacts.edits import ArtifactChange
from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.artifacts.manifests import Manifest
from prunefleet.infra.hub.store import files as store_files
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.blobs import Blobs
from prunefleet.infra.hub.store.database import Connection, Store
from prunefleet.infra.hub.store.errors import Conflict, Missing
from prunefleet.infra.hub.store.file_rows import AliasRow, ArtifactRow, CollectionRow, FileRow, MembershipRow, TypeRow
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, UserRow

T = TypeVar("T")
INCREMENTAL = "INCREMENTAL"


class Artifacts:
    """The artifacts of one store."""

    def __init__(self, store: Store, blobs: Blobs, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock

    # Reads

    def _read(self, work: Callable[..., T], *args: Any) -> T:
        with self._store.read() as connection:
            return work(connection, *args)

    def artifact(self, artifact_id: int) -> ArtifactRow:
        """One artifact. Raises `Missing`."""
        return self._read(log.reread, artifact_id)

    def membership(self, project: ProjectRow, name: str) -> MembershipRow | None:
        """What `collection:alias` or `collection:v3` names in a project."""
        return self._read(log.membership, project, name)

    def membership_in(self, owner: CollectionRow, alias: str) -> MembershipRow | None:
        """What an alias names in a collection."""
        return self._read(store_files.membership_called, owner, alias)

    def memberships(self, owner: CollectionRow) -> list[MembershipRow]:
        """A collection's versions, newest first."""
        return self._read(store_files.memberships, owner)

    def memberships_of(self, artifact_id: int) -> list[MembershipRow]:
        """Every collection an artifact is a version of."""
        return self._read(store_files.memberships_of, artifact_id)

    def latest(self, owner: CollectionRow) -> ArtifactRow | None:
        """The newest version of a collection."""
        found = self.memberships(owner)
        return self.artifact(found[0].artifact_id) if found else None

    def aliases(self, owner: CollectionRow, artifact_id: int | None = None) -> list[AliasRow]:
        """A collection's aliases, or those of one of its versions."""
        return self._read(store_files.aliases, owner, artifact_id)

    def files(self, artifact_id: int) -> list[FileRow]:
        """An artifact's files by name."""
        return self._read(store_files.artifact_files, artifact_id)

    def file_with(self, artifact_id: int, md5: str) -> FileRow | None:
        """A file of an artifact by its content (MD5 in base64)."""
        return self._read(store_files.artifact_file_with, artifact_id, md5)

    def collection(self, collection_id: int) -> CollectionRow:
        """One collection. Raises `Missing`."""
        return self._read(edits.reread_collection, collection_id)

    def collection_named(self, project: ProjectRow, name: str) -> CollectionRow | None:
        """The collection of that name."""
        return self._read(store_files.collection_named, project.id, name)

    def collections(self, project: ProjectRow, type_name: str | None = None) -> list[CollectionRow]:
        """A project's collections, or those of one type, newest first."""
        return self._read(store_files.collections, project.id, type_name)

    def types(self, project: ProjectRow) -> list[TypeRow]:
        """The types of a project's collections, by name."""
        return self._read(store_files.types, project)

    def outputs(self, run_id: int) -> list[ArtifactRow]:
        """What a run has logged."""
        return self._read(store_files.output_artifacts, run_id)

    def inputs(self, run_id: int) -> list[ArtifactRow]:
        """What a run has used."""
        return self._read(store_files.input_artifacts, run_id)

    def used_by(self, artifact_id: int) -> list[RunRow]:
        """The runs that have used an artifact."""
        return self._read(store_files.used_by, artifact_id)

    def id_of_client(self, client_id: str) -> int | None:
        """The artifact that a client knows under this name of its own."""
        return self._read(store_files.artifact_id_of_client, client_id)

    def artifact_file(self, entity: str, project: str, name: str, path: str) -> bytes:
        """The content of one file of the artifact `name` (`collection:alias`). Raises `Missing`."""
        with self._store.read() as connection:
            owner = statements.project(connection, entity, project)
            found = owner and log.membership(connection, owner, name)
            file = found and store_files.artifact_file(connection, found.artifact_id, path)
        if not file or file.sha256 is None:
            raise Missing(f"artifact: {entity}/{project}/{name} has no file {path!r}, or is not here")
        return self._blobs.read(file.sha256)

    # Logging

    def create(self, user: UserRow, new: NewArtifact) -> ArtifactRow:
        """A new artifact that waits for its files, or the version that has this content."""
        return self._store.write(lambda c: log.create(c, user, new, self._clock()))

    def expect_manifest(self, artifact_id: int, kind: str, md5: str, base_id: int | None) -> ArtifactRow:
        """Get ready for an artifact's manifest."""
        return self._store.write(lambda c: log.expect_manifest(c, artifact_id, kind, md5, base_id))

    def expect_files(self, wanted: Sequence[tuple[int, str, str]]) -> list[FileRow]:
        """Get ready for files (artifact, name, digest), in that order; those held already have their `sha256`."""
        now = self._clock()
        return self._store.write(lambda c: [log.expect_file(c, *file, now) for file in wanted])

    def commit(self, artifact_id: int) -> ArtifactRow:
        """Make an artifact the next version of its collection. Raises `Conflict` before its manifest is here."""
        artifact = self.artifact(artifact_id)
        manifest = self._manifest(artifact)
        merged = None
        if artifact.manifest_type == INCREMENTAL and artifact.base_id is not None:
            manifest = manifest.on(self._manifest(self.artifact(artifact.base_id)))
            merged = self._blobs.put([manifest.to_bytes()])
        return self._store.write(lambda c: log.commit(c, artifact_id, manifest, merged, self._clock()))

    def _manifest(self, artifact: ArtifactRow) -> Manifest:
        if artifact.manifest_sha256 is None:
            raise Conflict("artifact: its manifest was not uploaded; log the artifact again")
        return manifests.parse(self._blobs.read(artifact.manifest_sha256))

    def use(self, run_id: int, artifact_id: int) -> ArtifactRow:
        """Note that a run takes the artifact as input."""
        return self._store.write(lambda c: log.use(c, run_id, artifact_id, self._clock()))

    # Changes

    def revise(self, artifact_id: int, change: ArtifactChange) -> ArtifactRow:
        """Change what is known of a version."""
        return self._store.write(lambda c: edits.revise(c, artifact_id, change, self._clock()))

    def delete(self, artifact_id: int, *, with_aliases: bool) -> ArtifactRow:
        """Forget a version."""
        return self._store.write(lambda c: edits.delete(c, artifact_id, with_aliases=with_aliases))

    def add_aliases(self, artifact_id: int, target: CollectionRow, names: Sequence[str]) -> None:
        """Let names of a collection point to an artifact."""
        self._store.write(lambda c: edits.add_aliases(c, artifact_id, target, names))

    def delete_aliases(self, artifact_id: int, target: CollectionRow, names: Sequence[str]) -> None:
        """Take names from an artifact."""
        self._store.write(lambda c: edits.delete_aliases(c, artifact_id, target, names))

    def link(
        self, user: UserRow, artifact_id: int, place: tuple[str | None, str | None, str], aliases: Sequence[str]
    ) -> MembershipRow:
        """Make an artifact the latest version of the portfolio at `place` (entity, project, name)."""

        def work(connection: Connection) -> MembershipRow:
            found = edits.link(connection, user, artifact_id, place, self._clock())
            log.name_version(connection, found, [*aliases, log.LATEST])
            return found

        return self._store.write(work)

    def unlink(self, artifact_id: int, portfolio_id: int) -> None:
        """Take an artifact out of a portfolio."""
        self._store.write(lambda c: edits.unlink(c, artifact_id, portfolio_id))

    def revise_collection(self, collection_id: int, name: str | None, description: str | None) -> CollectionRow:
        """Rename or describe a collection."""
        now = self._clock()
        return self._store.write(lambda c: edits.revise_collection(c, collection_id, name, description, now))

    def retype_collection(self, collection_id: int, type_name: str) -> CollectionRow:
        """Give a collection another type."""
        return self._store.write(lambda c: edits.retype_collection(c, collection_id, type_name, self._clock()))

    def tag_collection(self, target: CollectionRow, added: Sequence[str], removed: Sequence[str]) -> CollectionRow:
        """Add tags to a collection, or take them away."""
        now = self._clock()
        return self._store.write(lambda c: edits.tag_collection(c, target, added, removed, now))

    def delete_collection(self, collection_id: int) -> CollectionRow:
        """Forget a collection with the versions logged to it."""
        return self._store.write(lambda c: edits.delete_collection(c, collection_id))
