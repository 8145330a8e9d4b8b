"""SQL that reads files and artifacts, as the rows of `file_rows.py`."""

from __future__ import annotations

import json

from prunefleet.infra.hub.store.database import Connection, RowMapping, many, one, scalar
from prunefleet.infra.hub.store.file_rows import (
    AliasRow,
    ArtifactRow,
    ArtifactState,
    CollectionKind,
    CollectionRow,
    FileOwner,
    FileRow,
    MembershipRow,
    TypeRow,
)
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow
from prunefleet.infra.hub.store.statements import moment
from prunefleet.infra.hub.store.statements import run as run_by_id

_COLLECTION = """
SELECT collection.*, project.entity, project.name AS project_name, project.created_at AS project_created_at
FROM collection JOIN project ON project.id = collection.project_id
"""
_ARTIFACT = """
SELECT artifact.*, membership.version FROM artifact
LEFT JOIN membership
    ON membership.artifact_id = artifact.id AND membership.collection_id = artifact.collection_id
"""


def run_files(connection: Connection, run_id: int, names: list[str], pattern: str | None) -> list[FileRow]:
    """A run's files by name: all, those named, or those like an SQL pattern."""
    sql = "SELECT * FROM run_file WHERE run_id = :run_id AND (:pattern IS NULL OR name LIKE :pattern) ORDER BY name"
    found = [_run_file(row) for row in many(connection, sql, run_id=run_id, pattern=pattern)]
    return [file for file in found if not names or file.name in names]


def run_file(connection: Connection, file_id: int) -> FileRow | None:
    """One file of a run."""
    row = one(connection, "SELECT * FROM run_file WHERE id = :file_id", file_id=file_id)
    return _run_file(row) if row else None


def run_file_count(connection: Connection, run_id: int) -> int:
    """How many files a run has."""
    return int(scalar(connection, "SELECT COUNT(*) FROM run_file WHERE run_id = :run_id", run_id=run_id))


def collection(connection: Connection, collection_id: int) -> CollectionRow | None:
    """The collection with that id."""
    row = one(connection, _COLLECTION + "WHERE collection.id = :id", id=collection_id)
    return _collection(row) if row else None


def collection_named(connection: Connection, project_id: int, name: str) -> CollectionRow | None:
    """The collection of that name in the project."""
    row = one(connection, _COLLECTION + "WHERE project_id = :p AND collection.name = :name", p=project_id, name=name)
    return _collection(row) if row else None


def collections(connection: Connection, project_id: int, type_name: str | None = None) -> list[CollectionRow]:
    """A project's collections, or those of one type, newest first."""
    sql = _COLLECTION + "WHERE project_id = :p AND (:type IS NULL OR type = :type) ORDER BY collection.id DESC"
    return [_collection(row) for row in many(connection, sql, p=project_id, type=type_name)]


def types(connection: Connection, project: ProjectRow) -> list[TypeRow]:
    """The types of a project's collections, by name."""
    sql = """
    SELECT MIN(id) AS id, type, MIN(created_at) AS created_at FROM collection WHERE project_id = :p
    GROUP BY type ORDER BY type
    """
    found = many(connection, sql, p=project.id)
    return [TypeRow(row["id"], project, row["type"], moment(row["created_at"])) for row in found]


def artifact(connection: Connection, artifact_id: int) -> ArtifactRow | None:
    """The artifact with that id."""
    return _first(_artifacts(connection, "WHERE artifact.id = :id", id=artifact_id))


def artifact_of_client(connection: Connection, collection_id: int, client_id: str) -> ArtifactRow | None:
    """The artifact that a client has created under this name of its own."""
    sql = "WHERE artifact.collection_id = :c AND client_id = :client_id"
    return _first(_artifacts(connection, sql, c=collection_id, client_id=client_id))


def artifact_id_of_client(connection: Connection, client_id: str) -> int | None:
    """The id of the artifact that a client knows under this name, in whichever project."""
    sql = "SELECT id FROM artifact WHERE client_id = :client_id ORDER BY id DESC LIMIT 1"
    found = scalar(connection, sql, client_id=client_id)
    return None if found is None else int(found)


def committed_with(connection: Connection, collection_id: int, digest: str) -> ArtifactRow | None:
    """The newest version of the collection with that content."""
    sql = "WHERE artifact.collection_id = :c AND digest = :digest AND state = 'COMMITTED' ORDER BY version DESC LIMIT 1"
    return _first(_artifacts(connection, sql, c=collection_id, digest=digest))


def output_artifacts(connection: Connection, run_id: int) -> list[ArtifactRow]:
    """What a run has logged, in order."""
    return _artifacts(connection, "WHERE run_id = :r AND state = 'COMMITTED' ORDER BY artifact.id", r=run_id)


def input_artifacts(connection: Connection, run_id: int) -> list[ArtifactRow]:
    """What a run has used, in order."""
    sql = """
    JOIN artifact_use ON artifact_use.artifact_id = artifact.id
    WHERE artifact_use.run_id = :r ORDER BY artifact_use.created_at, artifact.id
    """
    return _artifacts(connection, sql, r=run_id)


def used_by(connection: Connection, artifact_id: int) -> list[RunRow]:
    """The runs that have used an artifact."""
    sql = "SELECT run_id FROM artifact_use WHERE artifact_id = :id ORDER BY created_at, run_id"
    found = [run_by_id(connection, row["run_id"]) for row in many(connection, sql, id=artifact_id)]
    return [run for run in found if run is not None]


def memberships(connection: Connection, collection: CollectionRow) -> list[MembershipRow]:
    """The versions of a collection, newest first."""
    sql = "SELECT * FROM membership WHERE collection_id = :c ORDER BY version DESC"
    return [_membership(row, collection) for row in many(connection, sql, c=collection.id)]


def memberships_of(connection: Connection, artifact_id: int) -> list[MembershipRow]:
    """Every collection an artifact is a version of, the one it was logged to first."""
    found = many(connection, "SELECT * FROM membership WHERE artifact_id = :a ORDER BY id", a=artifact_id)
    rows = [(row, collection(connection, row["collection_id"])) for row in found]
    return [_membership(row, owner) for row, owner in rows if owner is not None]


def membership_called(connection: Connection, collection: CollectionRow, alias: str) -> MembershipRow | None:
    """The version that `v3`, `latest` or another alias of the collection names."""
    number = int(alias[1:]) if alias[:1] == "v" and alias[1:].isascii() and alias[1:].isdigit() else None
    sql = """
    SELECT membership.* FROM membership LEFT JOIN alias ON alias.membership_id = membership.id
    WHERE membership.collection_id = :c AND (membership.version = :number OR alias.name = :alias) LIMIT 1
    """
    row = one(connection, sql, c=collection.id, number=number if (number or 0) < 1 << 62 else None, alias=alias)
    return _membership(row, collection) if row else None


def aliases(connection: Connection, collection: CollectionRow, artifact_id: int | None = None) -> list[AliasRow]:
    """A collection's aliases, or those of one of its versions."""
    sql = """
    SELECT alias.* FROM alias JOIN membership ON membership.id = alias.membership_id
    WHERE alias.collection_id = :c AND (:a IS NULL OR membership.artifact_id = :a) ORDER BY alias.id
    """
    found = many(connection, sql, c=collection.id, a=artifact_id)
    return [AliasRow(row["id"], row["name"], collection) for row in found]


def artifact_files(connection: Connection, artifact_id: int) -> list[FileRow]:
    """An artifact's files by name."""
    sql = "SELECT * FROM artifact_file WHERE artifact_id = :id ORDER BY name"
    return [_artifact_file(row) for row in many(connection, sql, id=artifact_id)]


def artifact_file(connection: Connection, artifact_id: int, name: str) -> FileRow | None:
    """One file of an artifact."""
    sql = "SELECT * FROM artifact_file WHERE artifact_id = :id AND name = :name"
    row = one(connection, sql, id=artifact_id, name=name)
    return _artifact_file(row) if row else None


def artifact_file_with(connection: Connection, artifact_id: int, md5: str) -> FileRow | None:
    """A file of an artifact by its content."""
    sql = "SELECT * FROM artifact_file WHERE artifact_id = :id AND md5 = :md5 AND sha256 IS NOT NULL LIMIT 1"
    row = one(connection, sql, id=artifact_id, md5=md5)
    return _artifact_file(row) if row else None


def project_file_with(connection: Connection, project_id: int, md5: str) -> FileRow | None:
    """A file of any artifact of the project by its content."""
    sql = """
    SELECT artifact_file.* FROM artifact_file JOIN artifact ON artifact.id = artifact_file.artifact_id
    JOIN collection ON collection.id = artifact.collection_id
    WHERE artifact_file.md5 = :md5 AND sha256 IS NOT NULL AND collection.project_id = :p LIMIT 1
    """
    row = one(connection, sql, p=project_id, md5=md5)
    return _artifact_file(row) if row else None


def manifest_file(artifact: ArtifactRow) -> FileRow:
    """An artifact's manifest as a file; `sha256` is None until it is uploaded."""
    return FileRow(
        id=artifact.id,
        owner=FileOwner.MANIFEST,
        owner_id=artifact.id,
        name="wandb_manifest.json",
        md5=artifact.manifest_md5 or "",
        sha256=artifact.manifest_sha256,
        size=0,
        ref=None,
        updated_at=artifact.updated_at,
    )


def _first(found: list[ArtifactRow]) -> ArtifactRow | None:
    return found[0] if found else None


def _artifacts(connection: Connection, where: str, **values: object) -> list[ArtifactRow]:
    found = many(connection, _ARTIFACT + where, **values)
    owners = {number: collection(connection, number) for number in {row["collection_id"] for row in found}}
    return [_artifact(row, owner) for row in found if (owner := owners[row["collection_id"]]) is not None]


def _project(row: RowMapping) -> ProjectRow:
    return ProjectRow(row["project_id"], row["entity"], row["project_name"], moment(row["project_created_at"]))


def _collection(row: RowMapping) -> CollectionRow:
    return CollectionRow(
        id=row["id"],
        project=_project(row),
        name=row["name"],
        kind=CollectionKind(row["kind"]),
        type=row["type"],
        description=row["description"],
        tags=tuple(json.loads(row["tags"])),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )


def _artifact(row: RowMapping, owner: CollectionRow) -> ArtifactRow:
    return ArtifactRow(
        id=row["id"],
        collection=owner,
        version=row["version"],
        state=ArtifactState(row["state"]),
        digest=row["digest"],
        description=row["description"],
        metadata=row["metadata"],
        tags=tuple(json.loads(row["tags"])),
        aliases_wanted=tuple(json.loads(row["aliases"])),
        ttl_seconds=row["ttl_seconds"],
        history_step=row["history_step"],
        size=row["size"],
        file_count=row["file_count"],
        run_id=row["run_id"],
        manifest_type=row["manifest_type"],
        manifest_md5=row["manifest_md5"],
        manifest_sha256=row["manifest_sha256"],
        base_id=row["base_id"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )


def _membership(row: RowMapping, owner: CollectionRow) -> MembershipRow:
    return MembershipRow(row["id"], owner, row["artifact_id"], row["version"], moment(row["created_at"]))


def _run_file(row: RowMapping) -> FileRow:
    return FileRow(
        id=row["id"],
        owner=FileOwner.RUN,
        owner_id=row["run_id"],
        name=row["name"],
        md5=row["md5"],
        sha256=row["sha256"],
        size=row["size"],
        ref=None,
        updated_at=moment(row["updated_at"]),
    )


def _artifact_file(row: RowMapping) -> FileRow:
    return FileRow(
        id=row["id"],
        owner=FileOwner.ARTIFACT,
        owner_id=row["artifact_id"],
        name=row["name"],
        md5=row["md5"],
        sha256=row["sha256"],
        size=row["size"] or 0,
        ref=row["ref"],
        updated_at=moment(row["updated_at"]),
    )
