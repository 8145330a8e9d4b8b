"""Files and artifacts of a hub, for tests of what keeps it in order."""

import hashlib
import json
import os
import time

from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.file_rows import ArtifactRow, FileOwner

from support.hub import first_user

DAY = 86_400.0


def put_file(hub: Hub, run: str, name: str, content: bytes) -> str:
    user = first_user(hub)
    row, _ = hub.begin_run(user, RunChange(project="demo", name=run, host="h"))
    blob = hub.files.blobs.put([content])
    hub.files.keep(FileOwner.RUN, row.id, name, blob)
    return blob.sha256


def log_artifact(hub: Hub, content: bytes, *, finish: bool = True) -> ArtifactRow:
    """An artifact `model` with one file `w`."""
    md5 = hub.files.blobs.put([content]).md5
    new = NewArtifact(None, "demo", "model", "model", hashlib.sha256(content).hexdigest(), client_id=None)
    artifact = hub.artifacts.create(first_user(hub), new)
    hub.artifacts.expect_files([(artifact.id, "w", md5)])
    hub.files.keep(FileOwner.ARTIFACT, artifact.id, "w", hub.files.blobs.put([content]))
    if not finish:
        return artifact
    hub.artifacts.expect_manifest(artifact.id, "FULL", "", None)
    manifest = json.dumps({"contents": {"w": {"digest": md5, "size": len(content)}}}).encode()
    hub.files.keep(FileOwner.MANIFEST, artifact.id, "m", hub.files.blobs.put([manifest]))
    return hub.artifacts.commit(artifact.id)


def age(hub: Hub, days: float = 1.0) -> None:
    """Make every stored file look as if it had been uploaded long ago."""
    for path in hub.files.blobs.folder.glob("??/*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def has(hub: Hub, sha256: str) -> bool:
    try:
        return hub.files.blobs.path(sha256).is_file()
    except Missing:
        return False
