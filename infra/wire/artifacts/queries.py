"""What the client reads of artifacts: types, collections, versions, aliases, files, and who made and used them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.file_rows import ArtifactRow, CollectionRow, MembershipRow, TypeRow
from prunefleet.infra.hub.store.files import manifest_file
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow
from prunefleet.infra.wire.file_routes import file_connection
from prunefleet.infra.wire.graphql import filters, paging
from prunefleet.infra.wire.graphql.execute import Info, Resolvers
from prunefleet.infra.wire.graphql.ids import encode
from prunefleet.infra.wire.graphql.lookups import artifact_of_client, collection_id, owned, seen

KEPT_FOR_EVER = -2  # W&B's number for an artifact without an end


def membership_files(found: MembershipRow, info: Info, names: Sequence[str] | None = None, **page: Any) -> Any:
    """The files of the version, all or those named."""
    return artifact_files(info.context.hub.artifacts.artifact(found.artifact_id), info, names, **page)


def artifact_files(
    artifact: ArtifactRow,
    info: Info,
    names: Sequence[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> dict[str, Any]:
    """An artifact's files, all or those named."""
    found = info.context.hub.artifacts.files(artifact.id)
    return file_connection([file for file in found if not names or file.name in names], first, after)


def tag_nodes(tags: Sequence[str]) -> list[dict[str, str]]:
    """Tags as W&B's nodes; a tag is its name."""
    return [{"id": encode("Tag", number), "name": tag} for number, tag in enumerate(tags)]


def manifest_node(artifact: ArtifactRow) -> dict[str, Any]:
    """W&B's manifest: an id and a file."""
    return {"id": encode("ArtifactManifest", artifact.id), "file": manifest_file(artifact)}


def _files_by_entries(
    artifact: ArtifactRow,
    info: Info,
    entries: Sequence[Mapping[str, Any]] | None = None,
    first: int | None = None,
    after: str | None = None,
    **_layout: Any,
) -> dict[str, Any]:
    names = None if entries is None else [str(entry.get("name")) for entry in entries]
    return artifact_files(artifact, info, names, first, after)


def _counted(rows: Sequence[Any], first: int | None, after: str | None) -> dict[str, Any]:
    return {**paging.connection(rows, first, after), "totalCount": len(rows)}


def _collections(
    root: ProjectRow | TypeRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    filters: str | None = None,
    order: str | None = None,
) -> dict[str, Any]:
    known = info.context.hub.artifacts
    found = known.collections(root.project, root.name) if isinstance(root, TypeRow) else known.collections(root)
    return _counted(_select(found, _collection_column, filters, order), first, after)


def _collection_column(row: CollectionRow, name: str) -> Any:
    return {"type": row.type, "kind": row.kind.value}.get(name) if name in ("type", "kind") else _plain(row, name)


def _versions(
    root: CollectionRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    order: str | None = None,
    filters: str | None = None,
) -> dict[str, Any]:
    known = info.context.hub.artifacts
    found = [(member, known.artifact(member.artifact_id)) for member in known.memberships(root)]
    page = _counted(_select(found, _version_column, filters, order), first, after)
    edges = [{**edge, "version": f"v{edge['node'][0].version}", "node": edge["node"][1]} for edge in page["edges"]]
    return {**page, "edges": edges}


def _version_column(row: tuple[MembershipRow, ArtifactRow], name: str) -> Any:
    membership, artifact = row
    if name in ("version", "versionIndex", "version_index"):
        return membership.version
    return artifact.state.value if name == "state" else _plain(artifact, name)


def _plain(row: Any, name: str) -> Any:
    value = getattr(row, filters.snake(name), None)
    return list(value) if isinstance(value, tuple) else value


def _select(rows: Sequence[Any], read: Any, document: str | None, order: str | None) -> list[Any]:
    matches = filters.matcher(filters.parse(document), read)
    return filters.order([row for row in rows if matches(row)], order, read)


def _membership(root: ProjectRow, info: Info, name: str) -> MembershipRow | None:
    return info.context.hub.artifacts.membership(root, name)


def _membership_in(owner: CollectionRow, info: Info, aliasName: str) -> MembershipRow | None:  # noqa: N803
    return info.context.hub.artifacts.membership_in(owner, aliasName)


def _artifact_named(root: ProjectRow, info: Info, name: str, **_tracking: object) -> ArtifactRow | None:
    found = _membership(root, info, name)
    return info.context.hub.artifacts.artifact(found.artifact_id) if found else None


def _artifact_of_type(root: TypeRow, info: Info, name: str) -> ArtifactRow | None:
    found = _artifact_named(root.project, info, name)
    return found if found and found.collection.type == root.name else None


def _collection_named(root: ProjectRow | TypeRow, info: Info, name: str) -> CollectionRow | None:
    if not isinstance(root, TypeRow):
        return info.context.hub.artifacts.collection_named(root, name)
    found = info.context.hub.artifacts.collection_named(root.project, name)
    return found if found and found.type == root.name else None


def _type_named(root: ProjectRow, info: Info, name: str) -> TypeRow | None:
    return next((row for row in info.context.hub.artifacts.types(root) if row.name == name), None)


def _type_of(owner: CollectionRow, info: Info) -> TypeRow:
    return _type_named(owner.project, info, owner.type) or TypeRow(0, owner.project, owner.type, owner.created_at)


def _types(
    root: ProjectRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    includeAll: bool | None = None,  # noqa: N803
) -> dict[str, Any]:
    return paging.connection(info.context.hub.artifacts.types(root), first, after)


def _artifact(_root: object, info: Info, id: str) -> ArtifactRow | None:
    try:
        return info.context.hub.artifacts.artifact(owned(info, "Artifact", id))
    except Missing:
        return None


def _client_mapping(_root: object, info: Info, clientID: str) -> dict[str, str] | None:  # noqa: N803
    found = artifact_of_client(info, clientID)
    return None if found is None else {"serverID": encode("Artifact", found)}


def _aliases_of_artifact(artifact: ArtifactRow, info: Info) -> list[Any]:
    known = info.context.hub.artifacts
    places = seen(info, known.memberships_of(artifact.id))
    return [alias for place in places for alias in known.aliases(place.collection, artifact.id)]


def _created_by(artifact: ArtifactRow, info: Info) -> RunRow | None:
    return info.context.hub.records.run_by_id(artifact.run_id) if artifact.run_id is not None else None


def _latest(owner: CollectionRow, info: Info) -> ArtifactRow | None:
    return info.context.hub.artifacts.latest(owner)


_COLLECTION: Mapping[str, Callable[..., Any]] = {
    "id": lambda row, _info: encode(row.kind.value, row.id),
    "state": lambda _row, _info: "READY",
    "defaultArtifactType": _type_of,
    "tags": lambda row, _info: paging.everything(tag_nodes(row.tags)),
    "aliases": lambda row, info, first=None, after=None: paging.connection(
        info.context.hub.artifacts.aliases(row), first, after
    ),
    "artifacts": _versions,
    "artifactMembership": _membership_in,
}

RESOLVERS: Resolvers = {
    "Query": {
        "artifact": _artifact,
        "artifactCollection": lambda _root, info, id: info.context.hub.artifacts.collection(collection_id(info, id)),
        "clientIDMapping": _client_mapping,
    },
    "Project": {
        "artifact": _artifact_named,
        "artifactCollectionMembership": _membership,
        "artifactCollection": _collection_named,
        "artifactCollections": _collections,
        "artifactType": _type_named,
        "artifactTypes": _types,
    },
    "Run": {
        "outputArtifacts": lambda run, info, first=None, after=None: _counted(
            info.context.hub.artifacts.outputs(run.id), first, after
        ),
        "inputArtifacts": lambda run, info, first=None, after=None: _counted(
            seen(info, info.context.hub.artifacts.inputs(run.id)), first, after
        ),
    },
    "ArtifactType": {
        "id": lambda row, _info: encode("ArtifactType", row.id),
        "artifact": _artifact_of_type,
        "artifactCollection": _collection_named,
        "artifactCollections": _collections,
    },
    "ArtifactSequence": {
        **_COLLECTION,
        "latestArtifact": _latest,
        "digestAlgorithm": lambda _row, _info: "MANIFEST_MD5",
    },
    "ArtifactPortfolio": _COLLECTION,
    "ArtifactAlias": {
        "id": lambda alias, _info: encode("ArtifactAlias", alias.id),
        "alias": lambda alias, _info: alias.name,
        "artifactCollection": lambda alias, _info: alias.collection,
    },
    "Artifact": {
        "id": lambda artifact, _info: encode("Artifact", artifact.id),
        "artifactSequence": lambda artifact, _info: artifact.collection,
        "artifactType": lambda artifact, info: _type_of(artifact.collection, info),
        "versionIndex": lambda artifact, _info: artifact.version,
        "ttlDurationSeconds": lambda artifact, _info: artifact.ttl_seconds or KEPT_FOR_EVER,
        "ttlIsInherited": lambda artifact, _info: artifact.ttl_seconds is None,
        "tags": lambda artifact, _info: tag_nodes(artifact.tags),
        "digestAlgorithm": lambda _artifact, _info: "MANIFEST_MD5",
        "commitHash": lambda artifact, _info: artifact.manifest_sha256 and artifact.manifest_sha256[:40],
        "aliases": _aliases_of_artifact,
        "artifactMemberships": lambda artifact, info: paging.everything(
            seen(info, info.context.hub.artifacts.memberships_of(artifact.id))
        ),
        "currentManifest": lambda artifact, _info: manifest_node(artifact) if artifact.manifest_sha256 else None,
        "createdBy": _created_by,
        "usedBy": lambda artifact, info: paging.everything(seen(info, info.context.hub.artifacts.used_by(artifact.id))),
        "files": artifact_files,
        "filesByManifestEntries": _files_by_entries,
    },
    "ArtifactCollectionMembership": {
        "id": lambda row, _info: encode("ArtifactCollectionMembership", row.id),
        "versionIndex": lambda row, _info: row.version,
        "aliases": lambda row, info: info.context.hub.artifacts.aliases(row.collection, row.artifact_id),
        "artifactCollection": lambda row, _info: row.collection,
        "artifact": lambda row, info: info.context.hub.artifacts.artifact(row.artifact_id),
        "files": membership_files,
    },
}
