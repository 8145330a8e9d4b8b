"""What every task keeps, be it ours, a user's, or the ones that the docs show."""

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_task import TinyTask

from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.tasks.ready.fashion_mnist import FashionMNIST
from prunefleet.agent.tasks.ready.image_folder import ImageFolder
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import SPLITS, Budget, Task, data_hash, dense_budget, task_hash
from prunefleet.agent.tasks.training import recalibrate

from support import idx as support_idx
from support import pictures as support_pictures
from support.page import shown
from support.paths import ROOT

PAGE = ROOT / "docs" / "task.md"


def documented(name: str) -> Task:
    """The task that docs/task.md shows under that name."""
    code = shown(PAGE, name)
    space: dict[str, type] = {}
    exec(code, space)
    made: Task = space[name]()
    made.task_hash = lambda: code  # type: ignore[attr-defined]  # code that has no file has no source to hash
    return made


def example(name: str) -> Task:
    """A task of docs/examples, its dense network trained for a moment."""
    module = {"Blobs": "segmentation", "Scratches": "defects", "Shapes": "detection"}[name]
    made: Task = load_task(f"{module}:{name}", {"train": 80, "other": 16} if name == "Shapes" else {})
    made.dense_budget = lambda: Budget(1)  # type: ignore[attr-defined]
    return made


def folder(root: Path) -> Task:
    """A task on pictures in folders."""
    support_pictures.folders(root / "parts", 40)
    return ImageFolder(root=str(root / "parts"), architecture="resnet9", size=24, epochs=4, batch_size=16)


@pytest.fixture(params=["FashionMNIST", "TinyTask", "Leaves", "Masks", "Blobs", "Scratches", "Shapes", "ImageFolder"])
def task(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNEFLEET_DATA", str(tmp_path / "data"))
    support_idx.pretend(monkeypatch, tmp_path / "data", packed=False)
    if request.param in ("Blobs", "Scratches", "Shapes"):
        monkeypatch.syspath_prepend(str(PAGE.parent / "examples"))
        yield example(request.param)
    elif request.param == "ImageFolder":
        yield folder(tmp_path)
    elif request.param == "FashionMNIST":
        yield FashionMNIST(limit=300)
    else:
        yield TinyTask() if request.param == "TinyTask" else documented(request.param)


def _brief(task: Task) -> Budget:
    return Budget(0.5, dense_budget(task).lr)


def test_it_is_a_task(task: Task) -> None:
    """It has the members of the protocol, a name fit for files, and at least one metric."""
    assert isinstance(task, Task)
    assert re.fullmatch("[_a-zA-Z0-9]+", task.name) and task.metrics


def test_the_network_is_the_same_each_time(task: Task) -> None:
    """Two calls give networks with equal weights that do not share them."""
    one, other = task.network(), task.network()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert next(one.parameters()).data_ptr() != next(other.parameters()).data_ptr()


def test_the_network_takes_the_example_and_can_be_pruned(task: Task) -> None:
    """The example is one float input, the network runs on it, and DepGraph finds groups in it."""
    example = task.example_input()
    assert example.shape[0] == 1 and example.dtype == torch.float32
    assert find_groups(task.network(), example)


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_are_fractions_and_repeatable(task: Task, split: str) -> None:
    """Each split gives every metric as a fraction, the same twice, and leaves the network as it was."""
    network = task.network()
    before = copy.deepcopy(network.state_dict())
    found = task.evaluate(network, split)
    assert set(found) == set(task.metrics) and all(0 <= value <= 1 for value in found.values())
    assert task.evaluate(network, split) == found
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_limit_evaluates_the_first_examples(task: Task) -> None:
    """A limit of one example gives what that example gives; a limit beyond the end changes nothing."""
    network = task.network()
    whole = task.evaluate(network, "validation")
    assert task.evaluate(network, "validation", 10**6) == whole
    assert all(0 <= value <= 1 for value in task.evaluate(network, "validation", 1).values())


def test_training_learns_and_reports(task: Task) -> None:
    """Fitting lowers the reported loss, tells the epoch it is in, and is the same with the same seed."""
    rows: list[dict[str, float]] = []
    networks = [task.network(), task.network()]
    whole = dense_budget(task)
    budget = replace(whole, epochs=min(whole.epochs, 3.0))
    for network in networks:
        task.fit(network, budget, lambda row: bool(rows.append(dict(row)) or True))
    losses = [row["train_loss"] for row in rows[: len(rows) // 2] if "train_loss" in row]
    assert losses[-1] < losses[0]
    assert 0 < rows[0]["epoch"] <= budget.epochs
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in networks), strict=True))


def test_training_ends_when_told(task: Task) -> None:
    """After the report returned False, no further one comes."""
    rows: list[object] = []
    task.fit(task.network(), _brief(task), lambda row: bool(rows.append(row)))
    assert len(rows) == 1


def test_recalibration_changes_statistics_alone(task: Task) -> None:
    """Weights stay as they are; running statistics are those of the calibration batches, the same each time."""
    network, other = task.network(), task.network()
    before = copy.deepcopy(dict(network.named_parameters()))
    recalibrate(task, network)
    recalibrate(task, other)
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), other.buffers(), strict=True))
    assert any(float(buffer.float().abs().sum()) > 0 for buffer in network.buffers())


def test_hashes_are_stable(task: Task) -> None:
    """Code and data have the same hashes each time they are asked."""
    assert task_hash(task) == task_hash(task) and data_hash(task) == data_hash(task)


@pytest.mark.parametrize("name", ["Leaves", "Masks"])
def test_documented_tasks_are_short(name: str) -> None:
    """A user's task is at most 40 lines."""
    assert len([line for line in shown(PAGE, name).splitlines() if line.strip()]) <= 40
