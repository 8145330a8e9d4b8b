"""A device's requests on a server that enqueues no runs: versions of an artifact, answered by runs of their own.

Who asks logs `requests-NAME` with the request's key as an alias; the one host that measures for the device polls for
such versions and opens a run for each, whose id follows from both: a version is answered once. Nothing needs torch.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefleet.agent.measure.remote.device_queue import ENDED, Asked, Publisher, Queue
from prunefleet.objective.devices import AVOID, KEY, REQUEST, MeasurementRequest

KIND, FILE = "measurement-request", "request.json"
QUEUE = "queue"
"""The name of the device in the configuration of a run that answers."""
LOOKED_AT = 50  # versions, newest first
ATTEMPTS = 3  # as many as a hub gives a run that its host hands back


@dataclass(frozen=True)
class Waiting:
    """A request that nobody answers yet: the id that its run is to have, and its configuration."""

    run: str
    config: Mapping[str, Any]


def requests_name(device: str) -> str:
    """The artifact that holds a device's requests."""
    return f"requests-{device}"


def run_id(key: str, version: str) -> str:
    """The id of the run that answers a version of the requests."""
    return "m" + hashlib.sha256(f"{key}:{version}".encode()).hexdigest()[:11]


class Polled(Queue):
    """The requests to `device` in a project, entity/project; both sides of the way."""

    def __init__(self, project: str, device: str) -> None:
        super().__init__(project, requests_name(device))
        self.device = device
        self.how = f"prunefleet measure --poll {device}"
        self._served: dict[str, int] = {}

    def asked(self, key: str) -> list[Asked]:
        """All runs with that key, oldest first, and at last the request itself where no run has begun on it."""
        found, version = super().asked(key), self._version(key)
        own = run_id(key, version) if version else ""
        return found if not own or own in [each.name for each in found] else [*found, Asked(own, "pending")]

    def enqueue(self, request: MeasurementRequest, publisher: Publisher, avoid: Sequence[str] = ()) -> str:
        """Log a request; returns the id that its run will have. Who asks for the same at once logs the same version."""
        attempt = len(super().asked(request.key))  # after a failure the version is a new one
        config = {REQUEST: request.to_json(), KEY: request.key, AVOID: list(avoid), "attempt": attempt}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / FILE
            file.write_text(json.dumps(config, sort_keys=True))
            publisher.offer(self.name, KIND, {request.key: {FILE: file}})
        return run_id(request.key, self._version(request.key) or "")

    def waiting(self) -> Iterator[Waiting]:
        """The requests that wait, oldest first; one that was handed back waits again, `ATTEMPTS` times in all."""
        self._api.flush()  # type: ignore[no-untyped-call]  # the client remembers lists
        collection = f"{self.project}/{self.name}"
        if not self._api.artifact_collection_exists(collection, KIND):
            return
        newest = list(self._api.artifacts(KIND, collection, per_page=LOOKED_AT)[:LOOKED_AT])
        for artifact in reversed(newest):
            key = str(artifact.metadata.get("sha256"))
            own = run_id(key, str(artifact.version))
            if key not in artifact.aliases or self._served.get(own, 0) >= ATTEMPTS:
                continue
            runs = super().asked(key)
            if any(each.answered or (each.name == own and each.state in ENDED) for each in runs):
                self._served[own] = ATTEMPTS
            elif not any(each.stands and each.state != "preempted" for each in runs):
                self._served[own] = self._served.get(own, 0) + 1
                yield Waiting(own, self._document(artifact))

    def _document(self, artifact: Any) -> dict[str, Any]:
        """The configuration that a request asks for."""
        with tempfile.TemporaryDirectory() as folder:
            document = json.loads((Path(artifact.download(root=folder)) / FILE).read_text())
        return {**document, QUEUE: self.device}

    def _own(self) -> dict[str, str]:
        return {f"config.{QUEUE}.value": self.device}

    def _version(self, key: str) -> str | None:
        """The version of the requests that has the key as its alias."""
        path = f"{self.project}/{self.name}:{key}"
        return str(self._api.artifact(path).version) if self._api.artifact_exists(path) else None
