"""How an artifact comes to be: asked for, its files and manifest uploaded, committed as the next version.

A client asks with the digest of the content first; content that is a version of the collection already is not stored
again. What is not committed is in no listing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunefleet.infra.hub.artifacts.manifests import Manifest, ManifestEntry
from prunefleet.infra.hub.artifacts.names import check_alias, check_file, check_word
from prunefleet.infra.hub.store import files, statements
from prunefleet.infra.hub.store.blobs import Blob
from prunefleet.infra.hub.store.database import Connection, execute, insert, scalar, update
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.store.file_rows import (
    ArtifactRow,
    ArtifactState,
    CollectionKind,
    CollectionRow,
    FileRow,
    MembershipRow,
)
from prunefleet.infra.hub.store.rows import ProjectRow, UserRow
from prunefleet.infra.hub.users import projects

LATEST = "latest"


@dataclass(frozen=True)
class NewArtifact:
    """What a client says of an artifact that it is about to upload; `metadata` is JSON."""

    entity: str | None
    project: str | None
    collection: str
    type: str
    digest: str
    run: str | None = None
    client_id: str | None = None
    description: str | None = None
    metadata: str | None = None
    aliases: Sequence[str] = ()
    tags: Sequence[str] = ()
    ttl_seconds: int | None = None
    history_step: int | None = None
    deduplicate: bool = True

    def __post_init__(self) -> None:
        check_word("name", self.collection)
        check_word("type", self.type)
        for alias in self.aliases:
            check_alias(alias)
        if not self.digest:
            raise Invalid("artifact digest: got none; send the digest of its content")


def create(connection: Connection, user: UserRow, new: NewArtifact, now: float) -> ArtifactRow:
    """The version with this content where there is one, else a new artifact that waits for its files.

    Raises `Conflict` when the collection holds another type or only links, `Missing` for an unknown entity or run.
    """
    project = projects.ensure(connection, user, new.entity, new.project, now)
    owner = ensure_collection(connection, project, new.collection, CollectionKind.SEQUENCE, new.type, now)
    again = new.client_id and files.artifact_of_client(connection, owner.id, new.client_id)
    if again:
        return again
    same = files.committed_with(connection, owner.id, new.digest) if new.deduplicate else None
    if same is not None:
        name_version(connection, _own_membership(connection, same), new.aliases)
        update(connection, "artifact", same.id, client_id=new.client_id, updated_at=now)
        return reread(connection, same.id)
    return _insert(connection, project, owner, new, now)


def expect_manifest(connection: Connection, artifact_id: int, kind: str, md5: str, base_id: int | None) -> ArtifactRow:
    """Get ready for a manifest. Raises `Invalid` for the kind that several processes write together."""
    artifact = _pending(connection, artifact_id)
    if kind not in ("FULL", "INCREMENTAL"):
        raise Invalid("artifact: this server takes no distributed artifacts (upsert_artifact); log it from one process")
    base = base_id if base_id and files.artifact(connection, base_id) else None
    update(connection, "artifact", artifact.id, manifest_type=kind, manifest_md5=md5 or None, base_id=base)
    return reread(connection, artifact_id)


def expect_file(connection: Connection, artifact_id: int, name: str, digest: str, now: float) -> FileRow:
    """Get ready for a file; the row has its `sha256` where the project holds the same content already."""
    artifact = _pending(connection, artifact_id)
    held = files.project_file_with(connection, artifact.collection.project.id, digest)
    _put_file(
        connection, artifact_id, ManifestEntry(digest, held.size if held else 0, None), check_file(name), held, now
    )
    found = files.artifact_file(connection, artifact_id, name)
    assert found is not None
    return found


def keep_file(connection: Connection, artifact_id: int, name: str, blob: Blob, now: float) -> None:
    """Note that a file was uploaded. Raises `Missing` when nobody waits for it."""
    found = files.artifact_file(connection, artifact_id, name)
    if found is None:
        raise Missing("artifact file: nobody waits for it; the artifact may have been deleted")
    update(connection, "artifact_file", found.id, sha256=blob.sha256, size=blob.size, updated_at=now)


def keep_manifest(connection: Connection, artifact_id: int, blob: Blob, now: float) -> None:
    """Note that the manifest was uploaded. Raises `Missing` when the artifact is gone."""
    artifact = _pending(connection, artifact_id)
    update(connection, "artifact", artifact.id, manifest_sha256=blob.sha256, manifest_md5=blob.md5, updated_at=now)


def commit(
    connection: Connection, artifact_id: int, manifest: Manifest, merged: Blob | None, now: float
) -> ArtifactRow:
    """Make the artifact the next version of its collection; committing it again changes nothing.

    `merged` is its manifest where that is not the one uploaded. Raises `Invalid` naming a file that was not uploaded.
    """
    artifact = reread(connection, artifact_id)
    if artifact.state is ArtifactState.COMMITTED:
        return artifact
    for name, entry in manifest.entries.items():
        _settle_file(connection, artifact, name, entry, now)
    _drop_files(connection, artifact_id, manifest)
    sizes = "SELECT COALESCE(SUM(size), 0) FROM artifact_file WHERE artifact_id = :id"
    size = int(scalar(connection, sizes, id=artifact_id))
    facts = {"size": size, "file_count": len(manifest.entries), "state": ArtifactState.COMMITTED.value}
    if merged is not None:
        facts |= {"manifest_sha256": merged.sha256, "manifest_md5": merged.md5}
    update(connection, "artifact", artifact_id, updated_at=now, **facts)
    membership = add_version(connection, artifact.collection, artifact_id, now)
    name_version(connection, membership, [*artifact.aliases_wanted, LATEST])
    return reread(connection, artifact_id)


def use(connection: Connection, run_id: int, artifact_id: int, now: float) -> ArtifactRow:
    """Note that a run takes the artifact as input. Raises `Missing`."""
    artifact = reread(connection, artifact_id)
    sql = "INSERT INTO artifact_use (run_id, artifact_id, created_at) VALUES (:r, :a, :now) ON CONFLICT DO NOTHING"
    execute(connection, sql, r=run_id, a=artifact_id, now=now)
    return artifact


def ensure_collection(
    connection: Connection, project: ProjectRow, name: str, kind: CollectionKind, type_name: str, now: float
) -> CollectionRow:
    """The collection, made if it is new. Raises `Conflict` where it is of another kind or type."""
    check_word("name", name)
    found = files.collection_named(connection, project.id, name)
    if found is None:
        columns = {"project_id": project.id, "name": name, "kind": kind.value, "type": type_name}
        insert(connection, "collection", **columns, created_at=now, updated_at=now)
        found = files.collection_named(connection, project.id, name)
    assert found is not None
    if found.kind is not kind:
        raise Conflict(f"artifact name: {name!r} is a collection of {_KINDS[found.kind]} ones; choose another name")
    if found.type != type_name:
        raise Conflict(f"artifact type: {name!r} holds type {found.type!r}, got {type_name!r}; choose another name")
    return found


def add_version(connection: Connection, owner: CollectionRow, artifact_id: int, now: float) -> MembershipRow:
    """Make an artifact the next version of a collection. A version's number is never given twice."""
    version = int(scalar(connection, "SELECT next_version FROM collection WHERE id = :id", id=owner.id))
    update(connection, "collection", owner.id, next_version=version + 1, updated_at=now)
    columns = {"collection_id": owner.id, "artifact_id": artifact_id, "version": version, "created_at": now}
    insert(connection, "membership", **columns)
    found = files.membership_called(connection, owner, f"v{version}")
    assert found is not None
    return found


def name_version(connection: Connection, membership: MembershipRow, names: Sequence[str]) -> None:
    """Let aliases of the collection point to this version, away from any other. Raises `Invalid`."""
    sql = """
    INSERT INTO alias (collection_id, membership_id, name) VALUES (:c, :m, :name)
    ON CONFLICT (collection_id, name) DO UPDATE SET membership_id = excluded.membership_id
    """
    for name in dict.fromkeys(names):
        execute(connection, sql, c=membership.collection.id, m=membership.id, name=check_alias(name))


def reread(connection: Connection, artifact_id: int) -> ArtifactRow:
    """The artifact as it is now. Raises `Missing`."""
    found = files.artifact(connection, artifact_id)
    if found is None:
        raise Missing("artifact: it is not here; it may have been deleted")
    return found


def membership(connection: Connection, project: ProjectRow, name: str) -> MembershipRow | None:
    """What `collection:alias` or `collection:v3` names; without a colon, the latest."""
    collection_name, _, alias = name.partition(":")
    owner = files.collection_named(connection, project.id, collection_name)
    return files.membership_called(connection, owner, alias or LATEST) if owner else None


_KINDS: Mapping[CollectionKind, str] = {CollectionKind.SEQUENCE: "logged", CollectionKind.PORTFOLIO: "linked"}


def _insert(
    connection: Connection, project: ProjectRow, owner: CollectionRow, new: NewArtifact, now: float
) -> ArtifactRow:
    run = statements.run_named(connection, project.entity, project.name, new.run) if new.run else None
    columns: dict[str, Any] = {"description": new.description, "metadata": new.metadata}
    artifact_id = insert(
        connection,
        "artifact",
        collection_id=owner.id,
        run_id=run.id if run else None,
        state=ArtifactState.PENDING.value,
        client_id=new.client_id,
        digest=new.digest,
        aliases=json.dumps(list(new.aliases)),
        tags=json.dumps(list(dict.fromkeys(new.tags))),
        ttl_seconds=new.ttl_seconds,
        history_step=new.history_step,
        created_at=now,
        updated_at=now,
        **columns,
    )
    return reread(connection, artifact_id)


def _own_membership(connection: Connection, artifact: ArtifactRow) -> MembershipRow:
    found = files.membership_called(connection, artifact.collection, f"v{artifact.version}")
    assert found is not None  # whatever is committed is a version
    return found


def _pending(connection: Connection, artifact_id: int) -> ArtifactRow:
    artifact = reread(connection, artifact_id)
    if artifact.state is not ArtifactState.PENDING:
        raise Conflict("artifact: it is committed, nothing can be added; log a new version")
    return artifact


def _settle_file(connection: Connection, artifact: ArtifactRow, name: str, entry: ManifestEntry, now: float) -> None:
    """A manifest's file is kept elsewhere, was just uploaded, or was taken over from another version."""
    if entry.ref is not None:
        _put_file(connection, artifact.id, entry, name, None, now)
        return
    found = files.artifact_file(connection, artifact.id, name)
    if found is not None and found.sha256 is not None and found.md5 == entry.digest:
        return
    held = files.project_file_with(connection, artifact.collection.project.id, entry.digest)
    if held is None:
        raise Invalid(f"artifact file: {name[:80]!r} of the manifest was not uploaded; log the artifact again")
    _put_file(connection, artifact.id, entry, name, held, now)


def _drop_files(connection: Connection, artifact_id: int, manifest: Manifest) -> None:
    for file in files.artifact_files(connection, artifact_id):
        if file.name not in manifest.entries:
            execute(connection, "DELETE FROM artifact_file WHERE id = :id", id=file.id)


def _put_file(
    connection: Connection, artifact_id: int, entry: ManifestEntry, name: str, held: FileRow | None, now: float
) -> None:
    sql = """
    INSERT INTO artifact_file (artifact_id, name, md5, sha256, size, ref, updated_at)
    VALUES (:artifact_id, :name, :md5, :sha256, :size, :ref, :now)
    ON CONFLICT (artifact_id, name) DO UPDATE SET md5 = excluded.md5, sha256 = excluded.sha256, size = excluded.size,
        ref = excluded.ref, updated_at = excluded.updated_at
    """
    content = {"sha256": held.sha256, "size": held.size} if held else {"sha256": None, "size": entry.size}
    execute(connection, sql, artifact_id=artifact_id, name=name, md5=entry.digest, ref=entry.ref, now=now, **content)
