"""Tasks on inputs and targets in memory: how the user's figures become metrics, and what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from prunefleet.agent.answer.controls import evaluate
from prunefleet.agent.tasks.supervised import Pair, Supervised, cut
from prunefleet.objective.errors import BadInput


class Signs(Supervised):
    """Which of 250 numbers are positive: found by the identity."""

    name, metrics = "signs", ("share", "recall")

    def network(self) -> nn.Module:
        return nn.Identity()

    def splits(self) -> dict[str, Pair]:
        x = torch.linspace(-1, 1, 400)[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
        return cut({"train": 50, "validation": 50, "holdout": 50, "test": 250}, x[:, None], (x > 0.1).long())

    def fit(self, network: nn.Module, budget: Any, report: Any) -> None:
        raise NotImplementedError

    def figures(self, outputs: torch.Tensor, targets: torch.Tensor, metric: str) -> torch.Tensor:
        found, true = outputs[:, 0] > 0.2, targets == 1
        return (found == true)[:, None] if metric == "share" else torch.stack([found & true, true], 1)

    def value(self, metric: str, means: torch.Tensor) -> torch.Tensor:
        return means[..., 0] if metric == "share" else means[..., 0] / means[..., 1]


def test_figures_make_metrics_and_intervals() -> None:
    """Means of the figures are the metric, over batches and on a limit too; the answer has its interval."""
    task = Signs()
    x, y = task.data["test"]
    expected = {
        "share": float(((x[:, 0] > 0.2) == (y == 1)).double().mean()),
        "recall": float((x[y == 1] > 0.2).double().mean()),
    }
    assert task.evaluate(task.network(), "test") == pytest.approx(expected)
    assert task.evaluate(task.network(), "test", 1)["share"] in (0.0, 1.0)
    for metric in task.metrics:
        evaluated = evaluate(task, task.network(), {}, metric)
        assert evaluated.metric == pytest.approx(expected[metric])
        assert evaluated.quality()["test_lo"] < evaluated.metric < evaluated.quality()["test_hi"]


def test_inputs_are_given_as_they_are() -> None:
    """The example is the first of validation, calibration is train's, in batches."""
    task = Signs()
    assert torch.equal(task.example_input(), task.data["validation"][0][:1])
    assert torch.equal(torch.cat(list(task.calibration())), task.data["train"][0])


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": (torch.ones(2), torch.ones(2))}, "give the split 'validation' too"),
        ({"train": (torch.ones(2), torch.ones(3))}, "splits.train: got 3; give one target for each input: 2"),
        ({"train": (torch.ones(0), torch.ones(0))}, "splits.train: got 0"),
    ],
)
def test_wrong_splits_are_one_line(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Pair], words: str) -> None:
    """A missing split, and inputs without targets, are named."""
    monkeypatch.setattr(Signs, "splits", lambda self: splits)
    with pytest.raises(BadInput, match=words):
        _ = Signs().data


def test_splits_of_another_number_of_examples_are_refused() -> None:
    """In one line with the sizes and how many there are."""
    with pytest.raises(BadInput, match=r"sizes of targets: got .*make them 9 in all"):
        cut({"train": 8, "test": 2}, torch.zeros(10, 1), torch.zeros(9))
