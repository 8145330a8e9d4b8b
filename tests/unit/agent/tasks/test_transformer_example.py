"""The example of a vision transformer: what of it is pruned. A whole sweep of it is in tests/acceptance."""

from pathlib import Path

import pytest
import torch

from prunefleet.agent.compress.api import groups, prune
from prunefleet.agent.measure.export import check_parity, export
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import Budget, Task

from support.paths import DOCS


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    return load_task("transformer:Stripes")


def test_heads_and_perceptrons_are_groups_and_a_pruned_transformer_learns(task: Task, tmp_path: Path) -> None:
    """Groups are those that docs/task.md lists; one of four heads stays, and training and export go on with it."""
    network, image = task.network(), task.example_input()
    found = groups(network, image)
    page = (DOCS / "task.md").read_text()
    assert [(group.width, group.multiple) for group in found] == [(64, 1), (64, 16), (128, 1), (64, 16), (128, 1)]
    assert all(f"`{group.name}`" in page for group in list(found)[:3])

    pruned = prune(network, image, {group.name: max(group.width // 4, group.multiple) for group in found}).network
    assert pruned.get_submodule("encoder.layers.encoder_layer_0.self_attention").heads == 1
    losses: list[float] = []
    task.fit(pruned, Budget(0.5), lambda row: bool(losses.append(row["train_loss"]) or True))
    assert min(losses[1:]) < losses[0] and check_parity(export(pruned.eval(), image, tmp_path), pruned, image) <= 1e-4
    with torch.no_grad():
        assert pruned(image).shape == (1, 6)
