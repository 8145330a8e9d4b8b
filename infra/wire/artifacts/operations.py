"""Artifacts as the client reads and logs them: W&B's names ↔ the hub's calls."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Denied, HubError, Invalid, Missing
from prunefleet.infra.hub.store.file_rows import FileRow
from prunefleet.infra.hub.store.rows import UserRow
from prunefleet.infra.wire.artifacts import mutations, queries
from prunefleet.infra.wire.artifacts.queries import manifest_node
from prunefleet.infra.wire.file_routes import guarded, send
from prunefleet.infra.wire.graphql import paging
from prunefleet.infra.wire.graphql.arguments import Given, taking
from prunefleet.infra.wire.graphql.execute import Info, Resolvers
from prunefleet.infra.wire.graphql.lookups import find_run, own_number
from prunefleet.infra.wire.http import authenticate
from prunefleet.infra.wire.user_operations import FEATURES

MD5 = "MANIFEST_MD5"
FEATURES.update(
    (
        "ARTIFACT_COLLECTIONS_FILTERING_SORTING",
        "ARTIFACT_COLLECTION_MEMBERSHIP_FILE_DOWNLOAD_HANDLER",
        "ARTIFACT_DIGEST_ALGORITHM",
        "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
        "ARTIFACT_TAGS",
        "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID",
        "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    )
)


def routes(hub: Hub) -> list[BaseRoute]:
    """`GET /artifactsV2/{region}/{entity}/{project}/{collection}/[{artifact}/]{birth artifact}/{md5 hex}/{name}`.

    Older clients may leave out project, collection and name.
    """

    async def entry(request: Request) -> Response:
        user = authenticate(request, hub)
        *ids, digest, name = place_of(request.path_params["place"])
        file = await run_in_threadpool(find_entry, hub, user, ids, digest)
        assert file.sha256 is not None  # files are found by content that is here
        return send(hub, file.sha256, name)

    return [Route("/artifactsV2/{place:path}", guarded(entry), methods=["GET"])]


def place_of(path: str) -> list[str]:
    """Artifact ids, MD5 and name of an entry, from its address. Raises `Missing`."""
    parts = path.split("/")
    place = [*parts[2:], parts[-1]] if len(parts) == 4 else parts[4:]
    if len(place) < 3:
        raise Missing(f"artifact file: {path[:200]!r} is no address of one")
    return place


def find_entry(hub: Hub, user: UserRow, artifact_ids: Sequence[str], digest: str) -> FileRow:
    """The file with that MD5 (hexadecimal) in the first of these artifacts that has it. Raises `Missing`."""
    try:
        md5 = base64.b64encode(binascii.unhexlify(digest)).decode()
    except (binascii.Error, ValueError) as error:
        raise Missing(f"artifact file: {digest[:80]!r} is no MD5 in hexadecimal") from error
    for artifact_id in filter(None, artifact_ids):
        try:
            number = own_number(hub, user, "Artifact", artifact_id)
            found = hub.artifacts.file_with(number, md5)
        except HubError:  # an artifact that was deleted; the other address may still hold the file
            continue
        if found is not None:
            return found
    raise Missing("artifact file: it is not in this artifact; the artifact may have been deleted")


def _create(info: Info, given: Given) -> dict[str, Any]:
    _check_algorithm(given)
    if given.text("distributedID"):
        raise Invalid("artifact: this server takes no distributed artifacts (upsert_artifact); log it from one process")
    return {"artifact": info.context.hub.artifacts.create(info.context.user, _new(given))}


def _new(given: Given) -> NewArtifact:
    names = given.texts("artifactCollectionNames") or [given.text("artifactCollectionName")]
    return NewArtifact(
        entity=given.maybe("entityName"),
        project=given.maybe("projectName"),
        collection=names[0],
        type=given.text("artifactTypeName"),
        digest=given.text("digest"),
        run=given.maybe("runName"),
        client_id=given.maybe("clientID"),
        description=given.maybe("description"),
        metadata=given.maybe("metadata"),
        aliases=mutations.alias_names(given),
        tags=mutations.tag_names(given),
        ttl_seconds=given.whole("ttlDurationSeconds"),
        history_step=given.whole("historyStep"),
        deduplicate=given.flag("enableDigestDeduplication"),
    )


def _check_algorithm(given: Given) -> None:
    found = given.maybe("digestAlgorithm")
    if found not in (None, MD5):
        raise Invalid(f"digestAlgorithm: got {found!r}; this server takes {MD5}")


def _create_manifest(info: Info, given: Given) -> dict[str, Any]:
    artifact = info.context.hub.artifacts.expect_manifest(
        given.id("Artifact", "artifactID"),
        given.text("type") or "FULL",
        given.text("digest"),
        given.maybe_id("Artifact", "baseArtifactID"),
    )
    return {"artifactManifest": manifest_node(artifact)}


def _update_manifest(info: Info, given: Given) -> dict[str, Any]:
    known, artifact_id = info.context.hub.artifacts, given.id("ArtifactManifest", "artifactManifestID")
    held = known.artifact(artifact_id)
    base = given.maybe_id("Artifact", "baseArtifactID") or held.base_id
    artifact = known.expect_manifest(artifact_id, held.manifest_type or "FULL", given.text("digest"), base)
    return {"artifactManifest": manifest_node(artifact)}


def _create_files(info: Info, given: Given) -> dict[str, Any]:
    """One row for each file asked, in that order: the client counts on it."""
    wanted = []
    for spec in given.objects("artifactFiles"):
        _check_algorithm(spec)
        wanted.append((spec.id("Artifact", "artifactID"), spec.text("name"), spec.text("md5") or spec.text("digest")))
    files = info.context.hub.artifacts.expect_files(wanted)
    return {"files": {**paging.everything(files), "totalCount": len(files)}}


def _multipart(_info: Info, _given: Given) -> None:
    raise Denied("uploads in parts are not served; files of any size go to one address")


def _commit(info: Info, given: Given) -> dict[str, Any]:
    return {"artifact": info.context.hub.artifacts.commit(given.id("Artifact", "artifactID"))}


def _use(info: Info, given: Given) -> dict[str, Any]:
    run = find_run(info, given.maybe("entityName"), given.maybe("projectName"), given.text("runName"))
    return {"artifact": info.context.hub.artifacts.use(run.id, given.id("Artifact", "artifactID"))}


RESOLVERS: Resolvers = {
    **queries.RESOLVERS,
    "Mutation": {
        **mutations.MUTATIONS,
        "createArtifact": taking(_create),
        "createArtifactManifest": taking(_create_manifest),
        "updateArtifactManifest": taking(_update_manifest),
        "createArtifactFiles": taking(_create_files),
        "completeMultipartUploadArtifact": taking(_multipart),
        "commitArtifact": taking(_commit),
        "useArtifact": taking(_use),
    },
}
