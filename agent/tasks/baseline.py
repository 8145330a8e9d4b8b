"""The dense network: trained once, kept by the hash of its file, the same on every host of a sweep."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from prunefleet.agent.compress.fold import folded
from prunefleet.agent.compress.weights import load_weights
from prunefleet.agent.host.cache_files import cache_folder, only_one, replace_file, sha256_of
from prunefleet.agent.tasks.networks import misfit
from prunefleet.agent.tasks.task import HASH_VERSION, Budget, Task, data_hash, dense_budget, digest, task_hash
from prunefleet.agent.tasks.training import threads
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

FILE = "dense.safetensors"
HEADER = "prunefleet"
KIND = "dense"

Progress = Callable[[float, str], bool]
"""Called with the share done, 0 to 1, and a few words; returns False when training should end now."""


class ArtifactStore(Protocol):
    """Where a project keeps its artifacts."""

    def fetch(self, name: str, folder: Path) -> bool:
        """Put the files of artifact `name:v0` into `folder`; False when the project has none of that name."""

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        """Log an artifact with these files; returns its version, such as "v0"."""

    def named(self, kind: str, sha256: str) -> str | None:
        """Return the name of the project's artifact of that type whose metadata has this SHA-256; None without one."""


@dataclass(frozen=True)
class Baseline:
    """The dense network with its quality by split and metric, as fractions, measured where it was trained.

    `sha256` is that of the weights file at `path`, which holds the figures too; `name` is its artifact's.
    """

    network: nn.Module
    metrics: Mapping[str, Mapping[str, float]]
    sha256: str
    path: Path
    name: str
    seconds: float


def artifact_name(task: Task) -> str:
    """Name of the dense network's artifact: it changes with the task's code, its data and the training's length."""
    budget = dense_budget(task)
    recipe = repr((budget.epochs, budget.lr, budget.seed))
    return f"dense-{digest(task.name, task_hash(task), data_hash(task), recipe)[:12]}"


def obtain(
    task: Task, store: ArtifactStore | None = None, expected: str | None = None, progress: Progress | None = None
) -> Baseline:
    """The dense network: from the project, from this host, or else trained now and kept in both.

    `expected` is the SHA-256 that a sweep names: then nothing is trained. Of two processes on a host one trains, the
    other waits. Raises `BadInput` where the file found is not the expected one or belongs to other code or data, and
    `TrialFailed` of kind INTERRUPTED when `progress` returned False.
    """
    name = artifact_name(task)
    with only_one(_folder() / f"{name}.lock"):
        path = _expected(name, store, expected) if expected else _any(task, name, store, progress)
    return load(task, path, name)


def _folder() -> Path:
    return cache_folder() / "dense"


def _expected(name: str, store: ArtifactStore | None, sha256: str) -> Path:
    path = _folder() / f"{sha256}.safetensors"
    if path.is_file() and sha256_of(path) == sha256:
        return path
    found = _from(store, name) or _of_before(store, sha256)
    if found is None and store is None:
        remedy = f"this sweep uploads no network: copy {path.name} here, to {path.parent}, from the host that made it"
        raise BadInput("baseline", sha256[:12], remedy)
    if found is None:
        remedy = f"the project has no artifact {name} for this host's code and data: run `prunefleet plan` again"
        raise BadInput("baseline", sha256[:12], remedy)
    if found.stem != sha256:
        remedy = f"the project's {name}:v0 is {found.stem[:12]}: run `prunefleet plan` again"
        raise BadInput("baseline", sha256[:12], remedy)
    return found


def _of_before(store: ArtifactStore | None, sha256: str) -> Path | None:
    """Return the project's network of that hash under another name: version 0.1 named its artifacts by another rule."""
    name = store.named(KIND, sha256) if store else None
    return _from(store, name) if name else None


def _any(task: Task, name: str, store: ArtifactStore | None, progress: Progress | None) -> Path:
    if path := _from(store, name):
        return path
    path = _here(name) or _trained(task, name, progress or (lambda share, text: True))
    if store is None:
        return path
    version = _publish(store, name, path)
    # Another host may have been quicker: the first version counts for all.
    return path if version == "v0" else _from(store, name) or path


def _publish(store: ArtifactStore, name: str, path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / FILE
        copy.write_bytes(path.read_bytes())
        return store.publish(name, KIND, [copy], {"sha256": path.stem})


def _from(store: ArtifactStore | None, name: str) -> Path | None:
    """The project's file, copied to where files of its hash are kept on this host."""
    with tempfile.TemporaryDirectory() as folder:
        if store is None or not store.fetch(name, Path(folder)):
            return None
        return _keep((Path(folder) / FILE).read_bytes())


def _keep(content: bytes) -> Path:
    path = _folder() / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    replace_file(path, content)
    return path


def _here(name: str) -> Path | None:
    """What this host trained under that name, if the file is still whole."""
    note = _folder() / f"{name}.json"
    if not note.is_file():
        return None
    path = _folder() / f"{json.loads(note.read_text())['sha256']}.safetensors"
    return path if path.is_file() and sha256_of(path) == path.stem else None


def _trained(task: Task, name: str, progress: Progress) -> Path:
    from prunefleet.agent.measure.device import usable_cores

    began, network, budget = time.perf_counter(), task.network(), dense_budget(task)
    with threads(usable_cores()):  # nothing else runs yet
        _fit(task, network, budget, progress)
        metrics = {split: task.evaluate(network, split) for split in ("validation", "holdout")}
    note = {
        "task": task.name,
        "task_hash": task_hash(task),
        "hash_version": HASH_VERSION,
        "data_hash": data_hash(task),
        "metrics": metrics,
        "seconds": round(time.perf_counter() - began, 1),
    }
    # Copies, for layers that share a tensor would not be written otherwise.
    tensors = {key: tensor.clone().contiguous() for key, tensor in network.state_dict().items()}
    path = _keep(save(tensors, {HEADER: json.dumps(note, sort_keys=True)}))
    replace_file(_folder() / f"{name}.json", json.dumps({"sha256": path.stem}).encode())
    return path


def _fit(task: Task, network: nn.Module, budget: Budget, progress: Progress) -> None:
    last: dict[str, float] = {}
    stopped = []

    def report(row: Mapping[str, float]) -> bool:
        last.update(row)
        words = ", ".join(f"{key} {value:.4f}" for key, value in last.items() if key != "epoch")
        go_on = progress(row.get("epoch", 0.0) / budget.epochs, words)
        if not go_on:
            stopped.append(True)
        return go_on

    if budget.epochs:
        task.fit(network, budget, report)
    if stopped:
        raise TrialFailed(Failure(FailureKind.INTERRUPTED, "baseline", "the dense model was not trained to the end"))
    network.eval()


def load(task: Task, path: Path, name: str) -> Baseline:
    """The dense network from its file; raises `BadInput` if that belongs to other code or data than this host's."""
    try:
        with safe_open(path, "pt") as file:
            note = json.loads(file.metadata()[HEADER])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInput("baseline", str(path), f"delete this file, it is no dense model: {error}") from error
    same_rule = note.get("hash_version", 1) == HASH_VERSION  # hashes by another rule do not compare
    for what, own in (("task_hash", task_hash(task)), ("data_hash", data_hash(task))):
        if note[what] != own and (same_rule or what == "data_hash"):
            remedy = f"bring this host to the {what[:4]} that the dense model was trained with, {note[what][:12]}"
            raise BadInput(f"{what[:4]} of {task.name}", own[:12], remedy)
    network = task.network()
    try:
        load_weights(network, tensors)
    except RuntimeError as error:
        fault = misfit.of_error(error) or " ".join(str(error).split())[:160]
        remedy = f"delete this file, it is not of the network that {task.name} makes: {fault}"
        raise BadInput("baseline", str(path), remedy) from error
    return Baseline(folded(network.eval()), note["metrics"], path.stem, path, name, note["seconds"])


def metric(task: Task, baseline: Baseline, name: str) -> float:
    """The dense network's validation metric; raises `BadInput` for a metric that the task does not give."""
    if name not in task.metrics:
        raise BadInput("objective.metric", name, f"the task {task.name} gives {', '.join(task.metrics)}")
    return float(baseline.metrics["validation"][name])
