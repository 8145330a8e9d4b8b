"""Artifacts as the client reads and logs them: W&B's names ↔ the hub's calls."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from infra.hub.artifact_log import NewArtifact
from infra.hub.errors import Denied, HubError, Invalid, Missing
from infra.hub.file_rows import ArtifactRow, FileRow
from infra.hub.service import Hub
from infra.hub.store_files import manifest_file
from infra.wire import artifact_edits, artifact_reads
from infra.wire.files import guarded, send
from infra.wire.graphql import Info, Resolvers
from infra.wire.http import authenticate
from infra.wire.ids import decode, encode
from infra.wire.runs import find_run
from infra.wire.users import FEATURES

MD5 = "MANIFEST_MD5"
FEATURES.update(
    (
        "ARTIFACT_COLLECTIONS_FILTERING_SORTING",
        "ARTIFACT_DIGEST_ALGORITHM",
        "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
        "ARTIFACT_TAGS",
        "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID",
        "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    )
)


def routes(hub: Hub) -> list[BaseRoute]:
    """`GET /artifactsV2/{region}/{entity}/{project}/{collection}/[{artifact}/]{birth artifact}/{md5 hex}/{name}`."""

    async def entry(request: Request) -> Response:
        authenticate(request, hub)
        *place, digest, name = request.path_params["place"].split("/")
        file = await run_in_threadpool(find_entry, hub, place[4:], digest)
        assert file.sha256 is not None  # files are found by content that is here
        return send(hub, file.sha256, name)

    return [Route("/artifactsV2/{place:path}", guarded(entry), methods=["GET"])]


def find_entry(hub: Hub, artifact_ids: Sequence[str], digest: str) -> FileRow:
    """The file with that MD5 (hexadecimal) in the first of these artifacts that has it. Raises `Missing`."""
    try:
        md5 = base64.b64encode(binascii.unhexlify(digest)).decode()
    except (binascii.Error, ValueError) as error:
        raise Missing(f"artifact file: {digest[:80]!r} is no MD5 in hexadecimal") from error
    for artifact_id in filter(None, artifact_ids):
        try:
            found = hub.artifacts.file_with(decode("Artifact", artifact_id), md5)
        except HubError:  # an artifact that was deleted; the other address may still hold the file
            continue
        if found is not None:
            return found
    raise Missing("artifact file: it is not in this artifact; the artifact may have been deleted")


def _create(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    _check_algorithm(input)
    if input.get("distributedID"):
        raise Invalid("artifact: this server takes no distributed artifacts (upsert_artifact); log it from one process")
    return {"artifact": info.context.hub.artifacts.create(info.context.user, _new(input))}


def _new(given: Mapping[str, Any]) -> NewArtifact:
    names = given.get("artifactCollectionNames") or [given.get("artifactCollectionName")]
    step = given.get("historyStep")
    return NewArtifact(
        entity=given.get("entityName"),
        project=given.get("projectName"),
        collection=str(names[0] or ""),
        type=str(given.get("artifactTypeName") or ""),
        digest=str(given.get("digest") or ""),
        run=given.get("runName"),
        client_id=given.get("clientID"),
        description=given.get("description"),
        metadata=given.get("metadata"),
        aliases=artifact_edits.alias_names(given.get("aliases")),
        tags=artifact_edits.tag_names(given.get("tags")),
        ttl_seconds=artifact_edits.whole("ttlDurationSeconds", given.get("ttlDurationSeconds")),
        history_step=artifact_edits.whole("historyStep", step),
        deduplicate=bool(given.get("enableDigestDeduplication")),
    )


def _check_algorithm(given: Mapping[str, Any]) -> None:
    if given.get("digestAlgorithm") not in (None, MD5):
        raise Invalid(f"digestAlgorithm: got {given['digestAlgorithm']!r}; this server takes {MD5}")


def _create_manifest(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    base = input.get("baseArtifactID")
    artifact = info.context.hub.artifacts.expect_manifest(
        decode("Artifact", str(input.get("artifactID"))),
        str(input.get("type") or "FULL"),
        str(input.get("digest") or ""),
        decode("Artifact", str(base)) if base else None,
    )
    return {"artifactManifest": _manifest(artifact)}


def _update_manifest(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    known, artifact_id = info.context.hub.artifacts, decode("ArtifactManifest", str(input.get("artifactManifestID")))
    held, base = known.artifact(artifact_id), input.get("baseArtifactID")
    artifact = known.expect_manifest(
        artifact_id,
        held.manifest_type or "FULL",
        str(input.get("digest") or ""),
        decode("Artifact", str(base)) if base else held.base_id,
    )
    return {"artifactManifest": _manifest(artifact)}


def _manifest(artifact: ArtifactRow) -> dict[str, Any]:
    return {"id": encode("ArtifactManifest", artifact.id), "file": manifest_file(artifact)}


def _create_files(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    """One row for each file asked, in that order: the client counts on it."""
    wanted = []
    for spec in input.get("artifactFiles") or ():
        _check_algorithm(spec)
        digest = str(spec.get("md5") or spec.get("digest") or "")
        wanted.append((decode("Artifact", str(spec.get("artifactID"))), str(spec.get("name") or ""), digest))
    files = info.context.hub.artifacts.expect_files(wanted)
    edges = [{"node": file, "cursor": str(number)} for number, file in enumerate(files, 1)]
    return {"files": {"edges": edges, "totalCount": len(edges), "pageInfo": {"hasNextPage": False, "endCursor": None}}}


def _multipart(_root: object, _info: Info, input: Mapping[str, Any]) -> None:
    raise Denied("uploads in parts are not served; files of any size go to one address")


def _commit(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    return {"artifact": info.context.hub.artifacts.commit(decode("Artifact", str(input.get("artifactID"))))}


def _use(_root: object, info: Info, input: Mapping[str, Any]) -> dict[str, Any]:
    run = find_run(info, input.get("entityName"), input.get("projectName"), str(input.get("runName")))
    artifact_id = decode("Artifact", str(input.get("artifactID")))
    return {"artifact": info.context.hub.artifacts.use(run.id, artifact_id)}


RESOLVERS: Resolvers = {
    **artifact_reads.RESOLVERS,
    "Mutation": {
        **artifact_edits.MUTATIONS,
        "createArtifact": _create,
        "createArtifactManifest": _create_manifest,
        "updateArtifactManifest": _update_manifest,
        "createArtifactFiles": _create_files,
        "completeMultipartUploadArtifact": _multipart,
        "commitArtifact": _commit,
        "useArtifact": _use,
    },
}
