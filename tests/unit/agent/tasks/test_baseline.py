"""The dense network: trained once, kept by hash, the same for all hosts of a sweep."""

import hashlib
import inspect
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from tiny_task import TinyTask
from torch import nn

from prunefleet.agent.measure import device
from prunefleet.agent.tasks import baseline
from prunefleet.agent.tasks.baseline import artifact_name, obtain
from prunefleet.agent.tasks.task import Budget, task_hash
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed


class Folder:
    """A project's artifacts in a folder: each name has its versions."""

    def __init__(self, root: Path) -> None:
        self.root, self.fetched = root, 0

    def fetch(self, name: str, folder: Path) -> bool:
        self.fetched += 1
        if not (self.root / name / "v0").exists():
            return False
        shutil.copytree(self.root / name / "v0", folder, dirs_exist_ok=True)
        return True

    def named(self, kind: str, sha256: str) -> str | None:
        files = self.root.glob(f"{kind}-*/v0/{baseline.FILE}")
        return next((file.parents[1].name for file in files if baseline.sha256_of(file) == sha256), None)

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        version = f"v{len(list((self.root / name).glob('*')))}"
        target = self.root / name / version
        target.mkdir(parents=True)
        for file in files:
            shutil.copy(file, target)
        return version


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    _other_host(tmp_path, monkeypatch, "host")
    monkeypatch.setattr(device, "usable_cores", lambda: 1)  # tests share the cores with others
    return Folder(tmp_path / "store")


def _other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From here on this is a host with an empty cache."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / name))


def _count_fits(monkeypatch: pytest.MonkeyPatch) -> list[Budget]:
    fits: list[Budget] = []
    whole = TinyTask.fit
    monkeypatch.setattr(TinyTask, "fit", lambda self, *given: (fits.append(given[1]), whole(self, *given))[1])
    return fits


def test_it_is_trained_once_and_found_again(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call on a host loads what the first trained, weights and figures alike."""
    fits = _count_fits(monkeypatch)
    first, second = obtain(TinyTask()), obtain(TinyTask())
    assert len(fits) == 1 and first.sha256 == second.sha256 and first.metrics == second.metrics
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))
    assert first.metrics["validation"]["top1"] > 0.9 and set(first.metrics) == {"validation", "holdout"}


def test_another_host_gets_it_from_the_project(store: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an empty cache takes the project's file, verifies its hash, and trains nothing."""
    fits = _count_fits(monkeypatch)
    trained = obtain(TinyTask(), store)
    _other_host(tmp_path, monkeypatch, "second")
    fetched = obtain(TinyTask(), store, expected=trained.sha256)
    assert len(fits) == 1 and fetched.sha256 == trained.sha256
    asked = store.fetched
    assert obtain(TinyTask(), store, expected=trained.sha256).metrics == trained.metrics
    assert store.fetched == asked, "a host that has the file does not fetch it again"


def test_processes_that_start_together_train_once(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several callers on a host one trains while the others wait."""
    fits: list[Budget] = []
    monkeypatch.setattr(TinyTask, "fit", lambda self, *given: fits.append(given[1]))
    monkeypatch.setattr(TinyTask, "evaluate", lambda self, *given: {"top1": 0.5})
    got: list[str] = []
    callers = [threading.Thread(target=lambda: got.append(obtain(TinyTask()).sha256)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(300)
    assert len(set(got)) == 1 and len(got) == 3 and len(fits) == 1


def test_the_first_version_counts_for_all(store: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that trained while another was quicker takes the other's network."""
    name = artifact_name(TinyTask())
    first = obtain(TinyTask(), store)
    _other_host(tmp_path, monkeypatch, "second")
    monkeypatch.setattr(TinyTask, "dense_budget", lambda self: Budget(epochs=2, lr=0.1))
    monkeypatch.setattr(baseline, "artifact_name", lambda task: name)
    late = Folder(store.root)
    answers = iter([False])
    monkeypatch.setattr(late, "fetch", lambda *given: next(answers, None) is None and store.fetch(*given))
    assert obtain(TinyTask(), late).sha256 == first.sha256


def test_without_uploads_the_dense_network_is_brought_by_hand(store: Folder) -> None:
    """Where a sweep uploads no network, another host says which file it lacks and where to put it."""
    with pytest.raises(BadInput, match=rf"copy {'a' * 64}\.safetensors here, to .*dense, from the host that made it"):
        obtain(TinyTask(), None, expected="a" * 64)


def test_an_expected_hash_that_nobody_has_is_refused(store: Folder) -> None:
    """A sweep's dense model that is missing, or is another, is told in one line, and nothing is trained."""
    with pytest.raises(BadInput, match=r"no artifact dense-.*prunefleet plan"):
        obtain(TinyTask(), store, expected="a" * 64)
    obtain(TinyTask(), store)
    with pytest.raises(BadInput, match="baseline: got 'aaaaaaaaaaaa'; the project's dense-"):
        obtain(TinyTask(), store, expected="a" * 64)


def test_a_damaged_file_is_replaced(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weights file whose content changed on disk is not used: it is fetched again."""
    trained = obtain(TinyTask(), store)
    trained.path.write_bytes(trained.path.read_bytes()[:-1] + b"x")
    again = obtain(TinyTask(), store, expected=trained.sha256)
    assert again.sha256 == trained.sha256 and baseline.sha256_of(again.path) == trained.sha256


def by_version_0_1(path: Path) -> Path:
    """The network of a file as version 0.1 wrote it: its hash of the task held the package's own source."""
    with safe_open(path, "pt") as file:
        note = json.loads(file.metadata()[baseline.HEADER])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    del note["hash_version"]
    content = save(tensors, {baseline.HEADER: json.dumps(note | {"task_hash": "1" * 64})})
    old = path.with_name(f"{hashlib.sha256(content).hexdigest()}.safetensors")
    old.write_bytes(content)
    return old


def test_a_sweep_planned_by_version_0_1_goes_on(store: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dense network is found by the hash of its file, here and in the project; other data is refused as before."""
    old = by_version_0_1(obtain(TinyTask()).path)
    assert obtain(TinyTask(), store, expected=old.stem).sha256 == old.stem
    store.publish("dense-0123456789ab", "dense", [_named(old, tmp_path)], {"sha256": old.stem})
    _other_host(tmp_path, monkeypatch, "second")
    fits = _count_fits(monkeypatch)
    assert obtain(TinyTask(), store, expected=old.stem).sha256 == old.stem and not fits
    monkeypatch.setattr(TinyTask, "data_hash", lambda self: "b" * 64, raising=False)
    with pytest.raises(BadInput, match="data of tiny: got 'bbbbbbbbbbbb'"):
        obtain(TinyTask(), store, expected=old.stem)


def _named(file: Path, folder: Path) -> Path:
    return Path(shutil.copy(file, folder / baseline.FILE))


def test_a_task_s_hash_leaves_this_package_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package's own classes say is not in it; what the user's class says, and the network's shapes, are."""
    before, whole = task_hash(TinyTask()), inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda kind: whole(kind) + "#" * kind.__module__.startswith("prunefleet"))
    assert task_hash(TinyTask()) == before
    monkeypatch.setattr(inspect, "getsource", lambda kind: whole(kind) + "#" * (kind is TinyTask))
    assert task_hash(TinyTask()) != before


def test_other_code_or_data_is_refused(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose task or data differ from those that trained the network says which, in one line."""
    trained = obtain(TinyTask(), store)
    monkeypatch.setattr(TinyTask, "data_hash", lambda self: "b" * 64, raising=False)
    with pytest.raises(BadInput, match="data of tiny: got 'bbbbbbbbbbbb'"):
        baseline.load(TinyTask(), trained.path, "dense")
    monkeypatch.setattr(TinyTask, "task_hash", lambda self: "c" * 64, raising=False)
    with pytest.raises(BadInput, match="task of tiny: got 'cccccccccccc'"):
        baseline.load(TinyTask(), trained.path, "dense")


def test_a_file_that_is_no_dense_model_is_refused(tmp_path: Path) -> None:
    """Neither garbage nor foreign weights are loaded."""
    (tmp_path / "x.safetensors").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="no dense model"):
        baseline.load(TinyTask(), tmp_path / "x.safetensors", "dense")


def test_training_that_is_stopped_leaves_nothing(store: Folder) -> None:
    """When asked to stop, no half-trained network is kept; the next call trains anew."""
    with pytest.raises(TrialFailed) as told:
        obtain(TinyTask(), store, progress=lambda share, text: False)
    assert told.value.failure.kind is FailureKind.INTERRUPTED
    shares: list[float] = []
    obtain(TinyTask(), store, progress=lambda share, text: not shares.append(share))
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


def test_a_network_that_comes_trained_is_not_trained(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense budget of no epochs takes the task's network as it is."""
    monkeypatch.setattr(TinyTask, "dense_budget", lambda self: Budget(epochs=0))
    fits = _count_fits(monkeypatch)
    found = obtain(TinyTask(), store).network
    assert not fits
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), TinyTask().network().parameters(), strict=True))


class SharedTask(TinyTask):
    """Two names for one layer."""

    def network(self) -> nn.Module:
        network = super().network()
        network.rest3.again = cast(nn.Module, network.rest3)[0]
        return network


def test_layers_that_share_their_weights_are_kept(store: Folder) -> None:
    """A layer that stands in two places of a network is written and read like any other."""
    again = obtain(SharedTask(), store).network.state_dict()
    assert torch.equal(again["rest3.0.weight"], again["rest3.again.weight"])


def test_a_file_of_another_network_is_refused(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the task's own hash does not tell: the first layer, both shapes, and how many more."""
    monkeypatch.setattr(TinyTask, "task_hash", lambda self: "same", raising=False)
    monkeypatch.setattr(TinyTask, "dense_budget", lambda self: Budget(epochs=0))
    kept = obtain(TinyTask(), store)
    monkeypatch.setattr("tiny_task.WIDTH", 32)
    with pytest.raises(BadInput, match=r"baseline: got .*conv1.weight has shape \(64, 1, 3, 3\), not \(32, 1, 3, 3\)"):
        baseline.load(TinyTask(), kept.path, kept.name)
