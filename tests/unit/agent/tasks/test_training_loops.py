"""The examples whose training loop is another library's: run where that is installed, see docs/task.md."""

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import Budget, Task, dense_budget

from support.paths import ROOT

EXAMPLES = ROOT / "docs" / "examples"
LOOPS = {"lightning_task": ("lightning",), "huggingface_task": ("transformers", "accelerate")}
# What the libraries themselves warn of, on a host without an accelerator too.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(params=LOOPS)
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module of an example, in an empty working directory."""
    for package in LOOPS[request.param]:
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(request.param)


def task_of(example: ModuleType, checkpoint: Path | None = None) -> Any:
    """Its task, as a sweep file names it."""
    return load_task(f"{example.__name__}:Bright", {"checkpoint": str(checkpoint)} if checkpoint else None)


def trained(task: Task, epochs: float = 2) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    """A network after that many epochs, and what was reported."""
    rows: list[dict[str, float]] = []
    network = task.network()
    task.evaluate(network, "validation")  # leaves it in the mode for evaluation, as before any fine-tuning
    task.fit(network, Budget(epochs), lambda row: bool(rows.append(dict(row)) or True))
    return network, rows


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_s_example_is_short(name: str) -> None:
    """Network, data, loop and metric in 40 lines."""
    assert len(re.findall(r"\S.*\n", (EXAMPLES / f"{name}.py").read_text())) <= 40


def test_the_loop_learns_reports_and_is_seeded(example: ModuleType, tmp_path: Path) -> None:
    """The loss falls, epochs end at the budget's, two runs are alike, and nothing is left in the folder."""
    task = task_of(example)
    (network, rows), (again, _) = trained(task), trained(task)
    assert isinstance(task, Task) and find_groups(network, task.example_input())
    losses = [row["train_loss"] for row in rows]
    assert sum(losses[-5:]) < sum(losses[:5]) and rows[-1]["epoch"] == pytest.approx(2)
    assert rows[0]["epoch"] > 0 and [row["epoch"] for row in rows] == sorted(row["epoch"] for row in rows)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
    assert list(tmp_path.iterdir()) == []


def test_the_loop_ends_when_told(example: ModuleType) -> None:
    """After the report returned False no further batch is computed."""
    task, rows = task_of(example), list[object]()
    task.fit(task.network(), Budget(2), lambda row: bool(rows.append(row)))
    assert len(rows) == 1


def test_each_batch_can_be_paused(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is computed inside `batch()`, where a measurement on the host makes it wait: forward and backward."""
    inside, computed = [], []

    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    monkeypatch.setattr(example, "batch", counted)
    task = task_of(example)
    network = task.network()
    network.register_forward_hook(lambda *_: computed.append(bool(inside)))
    network[0][0].weight.register_hook(lambda _: computed.append(bool(inside)))
    task.fit(network, Budget(0.2), lambda row: True)
    assert len(computed) >= 4 and all(computed)


def test_weights_come_from_a_checkpoint_of_theirs(example: ModuleType, tmp_path: Path) -> None:
    """What the library saved is the network that comes trained, and then no epoch is trained."""
    network, _ = trained(task_of(example), 0.2)
    saved = save(example, network, tmp_path)
    task = task_of(example, saved)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), task.network().parameters(), strict=True))
    assert dense_budget(task).epochs == 0 and dense_budget(task_of(example)).epochs > 0


def save(example: ModuleType, network: torch.nn.Module, folder: Path) -> Path:
    """A checkpoint, written by the library itself."""
    if example.__name__ == "lightning_task":
        trainer = example.Trainer(max_steps=0, logger=False, enable_progress_bar=False, enable_model_summary=False)
        training = example.Training(network, report=lambda row: True)
        trainer.fit(training, torch.utils.data.DataLoader([(torch.zeros(1, 16, 16), torch.tensor(True))]))
        trainer.save_checkpoint(folder / "last.ckpt")
        return folder / "last.ckpt"
    args = example.TrainingArguments(str(folder / "out"), report_to="none")
    example.Loop(example.WithLoss(network), args, train_dataset=[]).save_model(str(folder / "saved"))
    return folder / "saved" / "model.safetensors"
