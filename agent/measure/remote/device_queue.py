"""A device's queue on the sweep server: where measuring elsewhere meets wandb. Nothing here needs torch."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import wandb
from wandb.errors import CommError, UnsupportedError

from prunefleet.agent.host.cache_files import replace_file
from prunefleet.agent.measure.exported import content_hash
from prunefleet.agent.measure.samples import FILE as SAMPLES
from prunefleet.agent.tracking.retry import lacks
from prunefleet.agent.tracking.tracked_run import plain
from prunefleet.objective.devices import ANSWER, AVOID, KEY, REQUEST, MeasurementRequest, device_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

NETWORKS = "deployed-networks"
"""The artifact that holds the networks to be measured: a version each, with the SHA-256 of its content as an alias."""
TIMEOUT_S = 30
RECENT = 20  # runs that are looked through for what a device last said
OPEN = ("pending", "running", "preempting", "preempted")
ENDED = ("finished", "failed", "crashed", "killed")


@dataclass(frozen=True)
class Asked:
    """A request as the server has it: the run's `name` and `state`, and its summary once it has ended."""

    name: str
    state: str
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """It has been measured."""
        return self.state == "finished" and ANSWER in self.summary

    @property
    def stands(self) -> bool:
        """It has been measured or will be: nobody need ask again."""
        return self.state in OPEN or self.answered


@runtime_checkable
class Publisher(Protocol):
    """An open run, which artifacts are logged by."""

    @property
    def project(self) -> str:
        """entity/project of the run."""

    def offer(self, name: str, kind: str, versions: Mapping[str, Mapping[str, Path]]) -> None:
        """Log a version of artifact `name` for each alias, of files by their name in it."""


class Queue:
    """The device sweep `name` of a project, entity/project; `how` is what its host runs."""

    def __init__(self, project: str, name: str) -> None:
        self.project, self.name = project, name
        self.path = f"{project}/{name}"
        self.how = f"wandb agent {self.path}"
        self._api = wandb.Api(timeout=TIMEOUT_S)

    def asked(self, key: str) -> list[Asked]:
        """All requests with that key, oldest first."""
        return list(self._runs({f"config.{KEY}.value": key}, "+created_at", 50))

    def said(self) -> Iterator[Asked]:
        """What the device answered last, newest first."""
        return (each for each in self._runs({"state": "finished"}, "-created_at", RECENT) if each.answered)

    def _runs(self, filters: Mapping[str, str], order: str, most: int) -> Iterator[Asked]:
        self._api.flush()  # type: ignore[no-untyped-call]  # the client remembers lists
        runs = self._api.runs(self.project, filters={**self._own(), **filters}, order=order, per_page=most)
        return (_asked(run) for run in runs[:most])

    def _own(self) -> dict[str, str]:
        """What the runs of the queue have in common."""
        return {"sweep": self.name}

    def enqueue(self, request: MeasurementRequest, publisher: Publisher, avoid: Sequence[str] = ()) -> str:
        """Put a request at the end of the queue; returns its run's name. Raises `BadInput` where servers have none.

        The hosts to `avoid` leave it to another board, if there is one. `publisher` is not needed here.
        """
        config = {REQUEST: {"value": request.to_json()}, KEY: {"value": request.key}}
        config |= {AVOID: {"value": list(avoid)}} if avoid else {}
        networks = f"{len(request.networks)} networks" if request.networks else "which device"
        try:
            sweep = self._api.sweep(self.path)  # type: ignore[no-untyped-call]
            return str(sweep.enqueue_run(config, display_name=f"{networks} {request.key[:8]}"))
        except UnsupportedError as error:
            remedy = "write local: this server cannot enqueue runs, which measuring elsewhere needs"
            raise BadInput("measure.device", request.device, remedy) from error

    def holds(self, sha256: str) -> bool:
        """Whether the project has that network."""
        return bool(self._api.artifact_exists(f"{self.project}/{NETWORKS}:{sha256}"))

    def fetch(self, sha256: str, folder: Path) -> Path:
        """Put that network into `folder`; returns its `.xml`. Raises `TrialFailed` where it is not the one."""
        with tempfile.TemporaryDirectory() as fresh:
            try:
                self._api.artifact(f"{self.project}/{NETWORKS}:{sha256}").download(root=fresh, skip_cache=True)
            except (CommError, ValueError) as error:
                if isinstance(error, CommError) and not lacks(error):
                    raise  # the server is away
                raise _unusable(f"network {sha256[:12]} cannot be had: {' '.join(str(error).split())[:150]}") from error
            xml, weights = Path(fresh) / "model.xml", Path(fresh) / "model.bin"
            if not (xml.is_file() and weights.is_file()) or content_hash(xml) != sha256:
                raise _unusable(f"network {sha256[:12]} arrived with another content than was asked for")
            for part in (weights, xml):
                replace_file(folder / f"{sha256}{part.suffix}", part.read_bytes())
        return folder / f"{sha256}.xml"

    def samples(self, run: str, folder: Path, version: str = "v0") -> Path:
        """The file of raw samples that a finished request left, in `folder`; a later attempt leaves another version."""
        self._api.artifact(f"{self.project}/{samples_name(run)}:{version}").download(root=str(folder))
        return folder / SAMPLES


@cache
def can_enqueue() -> bool:
    """Whether the server can enqueue runs: what the client asks it before it does so. Asked once."""
    return bool(wandb.Api(timeout=TIMEOUT_S)._service_api.feature_enabled("SWEEPS_LOCAL_SCHEDULER"))


def own_project() -> str:
    """entity/project of this user: WANDB_ENTITY or the server's word, WANDB_PROJECT or `prunefleet`."""
    entity = os.environ.get("WANDB_ENTITY") or wandb.Api(timeout=TIMEOUT_S).default_entity
    return f"{entity}/{os.environ.get('WANDB_PROJECT') or 'prunefleet'}"


def samples_name(run: str) -> str:
    """The artifact with a request's raw samples."""
    return f"samples-{run}"


def devices(project: str) -> dict[str, str]:
    """Sweeps of the project's devices by name of the device; of several that take requests, the newest."""
    entity, _, name = project.partition("/")
    try:
        sweeps: Sequence[Any] = list(wandb.Api(timeout=TIMEOUT_S).project(name, entity).sweeps())
    except ValueError:  # the client's word for a project that is not there
        return {}
    found: dict[str, tuple[str, str]] = {}
    for sweep in sweeps:
        device = device_of(str(sweep.name))
        if device and str(sweep.state).upper() in ("PENDING", "RUNNING", "PAUSED"):
            found[device] = max(found.get(device, ("", "")), (str(sweep.createdAt), str(sweep.id)))
    return {device: sweep for device, (_, sweep) in found.items()}


def _asked(run: Any) -> Asked:
    summary = plain(dict(run.summary)) if run.state in ENDED else {}
    return Asked(str(run.id), str(run.state), summary)


def _unusable(message: str) -> TrialFailed:
    return TrialFailed(Failure(FailureKind.DATA, "fetch", message))
