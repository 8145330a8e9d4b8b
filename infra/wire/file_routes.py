"""Files: `Run.files`, uploads and downloads by signed addresses that expire and need no key.

The client sends and fetches bytes without `Authorization`, so the address itself says, signed, what may be done.
"""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.artifacts.names import check_file
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.blobs import Blob, Draft, too_large
from prunefleet.infra.hub.store.errors import Denied, Invalid, Missing
from prunefleet.infra.hub.store.file_rows import FileOwner, FileRow
from prunefleet.infra.hub.store.rows import RunRow
from prunefleet.infra.wire.graphql import paging
from prunefleet.infra.wire.graphql.arguments import Given, taking
from prunefleet.infra.wire.graphql.execute import Context, Info, Resolvers
from prunefleet.infra.wire.graphql.ids import encode
from prunefleet.infra.wire.graphql.lookups import find_run, own_files
from prunefleet.infra.wire.http import announced, failure
from prunefleet.infra.wire.user_operations import FEATURES

log = logging.getLogger(__name__)
UPLOAD_TTL_S = 6 * 3600.0
DOWNLOAD_TTL_S = 3600.0
_CHUNK = 1 << 20  # bytes collected before a thread writes them
FEATURES.update(("LARGE_FILENAMES", "MARK_RUN_FILES_UPLOADED", "TOTAL_COUNT_IN_FILE_CONNECTION"))


def upload_address(known: Context, owner: FileOwner, owner_id: int, name: str, md5: str | None = None) -> str:
    """Where the bytes of one file are to be PUT; `md5` (base64) is what they must have."""
    token = known.hub.auth.sign({"put": [known.user.username, owner.value, owner_id, name, md5]}, UPLOAD_TTL_S)
    return f"{known.base_url}/upload/{token}"


def download_address(known: Context, file: FileRow) -> str:
    """Where a file's bytes are; of a file kept elsewhere its own address, and nowhere ("") while there are none."""
    if file.ref is not None or file.sha256 is None:
        return file.ref or ""
    granted = [known.user.username, file.owner.value, file.owner_id, file.name]
    token = known.hub.auth.sign({"get": granted}, DOWNLOAD_TTL_S)
    return f"{known.base_url}/download/{token}/{quote(_base(file.name))}"


def file_connection(files: Sequence[FileRow], first: int | None, after: str | None) -> dict[str, Any]:
    """A page of files, with their number."""
    return {**paging.connection(files, first, after), "totalCount": len(files)}


def routes(hub: Hub) -> list[BaseRoute]:
    """`PUT /upload/{token}` and `GET /download/{token}/{name}`."""

    async def upload(request: Request) -> Response:
        owner, owner_id, name, md5 = await run_in_threadpool(_grant, hub, request, "put")
        if announced(request) > hub.limits.file:
            raise too_large(hub.limits.file)
        blob = await receive(request, hub, md5, lambda blob: hub.files.keep(owner, owner_id, name, blob))
        return Response(headers={"ETag": f'"{blob.md5}"'})

    async def download(request: Request) -> Response:
        owner, owner_id, name = await run_in_threadpool(_grant, hub, request, "get")
        file = await run_in_threadpool(hub.files.find, owner, owner_id, name)
        if file is None or file.sha256 is None:
            raise Missing("file: it is not here; it may have been deleted")
        return send(hub, file.sha256, name)

    return [
        Route("/upload/{token}", guarded(upload), methods=["PUT"]),
        Route("/download/{token}/{name:path}", guarded(download), methods=["GET"]),
    ]


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A route's function that turns errors into what the client prints."""

    async def serve(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return failure(request, error)

    return serve


async def receive(request: Request, hub: Hub, md5: str | None, note: Callable[[Blob], None]) -> Blob:
    """Stream a request's body to disk and `note` it; on return it is there for good.

    A body that fits into one chunk, as most do, needs a thread once: a fleet's trials upload several files each.
    """
    draft: Draft | None = None
    held = bytearray()
    try:
        async for chunk in request.stream():
            held += chunk
            if len(held) >= _CHUNK:
                if draft is None:
                    draft = await run_in_threadpool(hub.files.blobs.draft)
                await run_in_threadpool(draft.write, bytes(held))
                held.clear()
        return await run_in_threadpool(_finish, hub, draft, bytes(held), md5, note)
    finally:
        if draft is not None:
            await run_in_threadpool(draft.discard)


def _finish(hub: Hub, draft: Draft | None, rest: bytes, md5: str | None, note: Callable[[Blob], None]) -> Blob:
    with draft or hub.files.blobs.draft() as kept:
        kept.write(rest)
        blob = kept.keep(md5)
    note(blob)
    return blob


def send(hub: Hub, sha256: str, name: str) -> Response:
    """A stored file, in parts where the client asks so. A browser may save it or show an image, never run it."""
    kind = mimetype(name) or ""
    return FileResponse(
        hub.files.blobs.path(sha256),
        media_type=kind if kind.startswith("image/") and "svg" not in kind else "application/octet-stream",
        filename=_base(name),
        headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"},
    )


def mimetype(name: str) -> str | None:
    """What a file's name says it is."""
    return mimetypes.guess_type(name)[0]


def _grant(hub: Hub, request: Request, action: str) -> Any:
    """What a signed address allows: the file's owner, its number, the name, and what else was signed.

    It lasts as long as the user for whom it was made may see that owner. Raises `Denied` for any other, or an old one.
    """
    try:
        payload = hub.auth.unsign(request.path_params["token"])
    except Invalid as error:
        raise Denied(f"address: {error}") from error
    if not isinstance(payload, dict) or action not in payload:
        raise Denied("address: it was made for something else; ask for a new one")
    username, owner, owner_id, *rest = payload[action]
    user = hub.auth.user_named(username)
    if user is None:
        raise Denied("address: it was made for somebody who is no user here any more")
    hub.access.check(user, "Run" if owner == FileOwner.RUN else "Artifact", owner_id)
    return FileOwner(owner), owner_id, *rest


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _create_run_files(info: Info, given: Given) -> dict[str, Any]:
    known, run = info.context, _run(info, given)
    names = [check_file(name) for name in given.texts("files")]
    files = [{"name": name, "uploadUrl": upload_address(known, FileOwner.RUN, run.id, name)} for name in names]
    return {"runID": encode("Run", run.id), "uploadHeaders": [], "files": files}


def _mark_uploaded(info: Info, given: Given) -> dict[str, Any]:
    """A file is there as soon as its upload has ended, so there is nothing left to note."""
    _run(info, given)
    return {"success": True}


def _run(info: Info, given: Given) -> RunRow:
    return find_run(info, given.maybe("entityName"), given.maybe("projectName"), given.text("runName"))


def _delete_files(info: Info, given: Given) -> dict[str, Any]:
    info.context.hub.files.delete(own_files(info, given.texts("files")), given.whole("projectId"))
    return {"success": True}


def _run_files(
    run: RunRow,
    info: Info,
    names: Sequence[str] = (),
    first: int | None = None,
    after: str | None = None,
    pattern: str | None = None,
) -> dict[str, Any]:
    named = [name.removeprefix("./") for name in names or ()]  # the client uploads ./a as a
    return file_connection(info.context.hub.files.listed(run.id, named, pattern), first, after)


def _upload_url(file: FileRow, info: Info) -> str | None:
    """None where the bytes are here already."""
    if file.sha256 is not None and file.owner is not FileOwner.MANIFEST:
        return None
    return upload_address(info.context, file.owner, file.owner_id, file.name, file.md5 or None)


def _artifact_of(file: FileRow, info: Info) -> Any:
    return None if file.owner is FileOwner.RUN else info.context.hub.artifacts.artifact(file.owner_id)


_IDS = {FileOwner.RUN: "RunFile", FileOwner.ARTIFACT: "ArtifactFile", FileOwner.MANIFEST: "ArtifactManifestFile"}

RESOLVERS: Resolvers = {
    "Mutation": {
        "createRunFiles": taking(_create_run_files),
        "markRunFilesUploaded": taking(_mark_uploaded),
        "deleteFiles": taking(_delete_files),
    },
    "Run": {
        "fileCount": lambda run, info: info.context.hub.files.count(run.id),
        "files": _run_files,
    },
    "File": {
        "id": lambda file, _info: encode(_IDS[file.owner], file.id),
        "displayName": lambda file, _info: file.name,
        "url": lambda file, info, upload=False: _upload_again(file, info) if upload else _url(file, info),
        "directUrl": lambda file, info: _url(file, info),
        "uploadUrl": _upload_url,
        "uploadHeaders": lambda _file, _info: [],
        "uploadMultipartUrls": lambda _file, _info: None,
        "sizeBytes": lambda file, _info: file.size,
        "storagePath": lambda file, _info: file.sha256,
        "mimetype": lambda file, _info: mimetype(file.name),
        "digest": lambda file, _info: file.md5,
        "artifact": _artifact_of,
    },
}


def _url(file: FileRow, info: Info) -> str:
    return download_address(info.context, file)


def _upload_again(file: FileRow, info: Info) -> str:
    return upload_address(info.context, file.owner, file.owner_id, file.name)
