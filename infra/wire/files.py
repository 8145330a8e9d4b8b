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

from infra.hub.blobs import Blob, Draft
from infra.hub.errors import Denied, HubError, Invalid
from infra.hub.file_rows import FileOwner, FileRow
from infra.hub.names import check_file
from infra.hub.rows import RunRow
from infra.hub.service import Hub
from infra.wire import paging
from infra.wire.given import Given, taking
from infra.wire.graphql import Context, Info, Resolvers
from infra.wire.http import error_response
from infra.wire.ids import decode, encode
from infra.wire.runs import find_run
from infra.wire.users import FEATURES

log = logging.getLogger(__name__)
UPLOAD_TTL_S = 6 * 3600.0
DOWNLOAD_TTL_S = 3600.0
_CHUNK = 1 << 20  # bytes collected before a thread writes them
FEATURES.update(("LARGE_FILENAMES", "MARK_RUN_FILES_UPLOADED", "TOTAL_COUNT_IN_FILE_CONNECTION"))


def upload_address(known: Context, owner: FileOwner, owner_id: int, name: str, md5: str | None = None) -> str:
    """Where the bytes of one file are to be PUT; `md5` (base64) is what they must have."""
    token = known.hub.auth.sign({"put": [owner.value, owner_id, name, md5]}, UPLOAD_TTL_S)
    return f"{known.base_url}/upload/{token}"


def download_address(known: Context, file: FileRow) -> str:
    """Where a file's bytes are; of a file kept elsewhere its own address, and nowhere ("") while there are none."""
    if file.ref is not None or file.sha256 is None:
        return file.ref or ""
    token = known.hub.auth.sign({"get": [file.sha256, file.name]}, DOWNLOAD_TTL_S)
    return f"{known.base_url}/download/{token}/{quote(_base(file.name))}"


def file_connection(files: Sequence[FileRow], first: int | None, after: str | None) -> dict[str, Any]:
    """A page of files, with their number."""
    return {**paging.connection(files, first, after), "totalCount": len(files)}


def routes(hub: Hub) -> list[BaseRoute]:
    """`PUT /upload/{token}` and `GET /download/{token}/{name}`."""

    async def upload(request: Request) -> Response:
        owner, owner_id, name, md5 = _grant(hub, request, "put")
        blob = await receive(request, hub, md5)
        await run_in_threadpool(hub.files.keep, FileOwner(owner), owner_id, name, blob)
        return Response(headers={"ETag": f'"{blob.md5}"'})

    async def download(request: Request) -> Response:
        sha256, name = _grant(hub, request, "get")
        return send(hub, sha256, name)

    return [
        Route("/upload/{token}", guarded(upload), methods=["PUT"]),
        Route("/download/{token}/{name:path}", guarded(download), methods=["GET"]),
    ]


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A route's function that turns errors into what the client prints."""

    async def serve(request: Request) -> Response:
        try:
            return await handler(request)
        except HubError as error:
            return error_response(str(error), error.status)
        except Exception:
            log.exception("%s %s", request.method, request.url.path.split("/")[1])
            return error_response("the hub failed on this request; its log says why", 500)

    return serve


async def receive(request: Request, hub: Hub, md5: str | None) -> Blob:
    """Stream a request's body to disk; on return it is there for good."""
    draft = await run_in_threadpool(hub.files.blobs.draft)
    try:
        await _fill(draft, request)
        return await run_in_threadpool(draft.keep, md5)
    finally:
        await run_in_threadpool(draft.discard)


async def _fill(draft: Draft, request: Request) -> None:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) >= _CHUNK:
            await run_in_threadpool(draft.write, bytes(held))
            held.clear()
    await run_in_threadpool(draft.write, bytes(held))


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
    """What a signed address allows. Raises `Denied` for any other, or an old one."""
    try:
        payload = hub.auth.unsign(request.path_params["token"])
    except Invalid as error:
        raise Denied(f"address: {error}") from error
    if not isinstance(payload, dict) or action not in payload:
        raise Denied("address: it was made for something else; ask for a new one")
    return payload[action]


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
    numbers = [decode("RunFile", file_id) for file_id in given.texts("files")]
    info.context.hub.files.delete(numbers, given.whole("projectId"))
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
