"""Metrics of classification: held against scikit-learn, and against what scores that are none would make of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from prunefleet.agent.tasks.classification import class_weights
from prunefleet.agent.tasks.metrics import metric, ranks
from prunefleet.objective.errors import BadInput

NAMES = ("top1", "top2", "balanced_accuracy", "recall", "precision", "f1")


@st.composite
def _judged(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, some of them equal, and labels."""
    n, classes = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    scores = draw(st.lists(st.integers(0, 4), min_size=n * classes, max_size=n * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return torch.tensor(scores, dtype=torch.float32).view(n, classes), torch.tensor(labels)


def _of(name: str, logits: torch.Tensor, labels: torch.Tensor) -> float:
    found = metric(name)
    return float(found.value(found.columns(logits, labels).double().mean(0)))


@given(_judged())
def test_they_are_scikit_learns(judged: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Accuracy, balanced accuracy, recall, precision and F1 equal the library's on the class chosen first."""
    logits, labels = judged
    chosen, right = logits.numpy().argmax(1), labels.numpy()
    expected = {
        "top1": reference.accuracy_score(right, chosen),
        "recall": reference.recall_score(right == 1, chosen == 1, zero_division=0),
        "precision": reference.precision_score(right == 1, chosen == 1, zero_division=0),
        "f1": reference.f1_score(right == 1, chosen == 1, zero_division=0),
    }
    assert {name: _of(name, logits, labels) for name in expected} == pytest.approx(expected)
    recalls = [np.mean(chosen[right == label] == label) for label in np.unique(right)]
    assert _of("balanced_accuracy", logits, labels) == pytest.approx(np.mean(recalls))


@given(_judged())
def test_means_of_parts_make_the_metric(judged: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A metric of pooled figures is that of the whole, and many means are judged at once."""
    logits, labels = judged
    for name in NAMES:
        found = metric(name)
        columns = found.columns(logits, labels).double()
        pooled = torch.stack([columns.mean(0), columns.flip(0).mean(0)])
        assert found.value(pooled).shape == (2,)
        assert found.value(pooled).tolist() == pytest.approx([_of(name, logits, labels)] * 2)


def test_equal_or_broken_scores_are_not_right() -> None:
    """A network that gives all classes the same score chooses the first; one that gives NaN is never right."""
    assert ranks(torch.zeros(3, 3), torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    broken = torch.full((2, 2), float("nan"))
    assert [_of(name, broken, torch.tensor([0, 1])) for name in ("top1", "balanced_accuracy", "recall")] == [0, 0, 0]


@pytest.mark.parametrize("name", ["top0", "top", "accuracy", "topless"])
def test_an_unknown_metric_is_one_line(name: str) -> None:
    """The line says which metrics there are."""
    with pytest.raises(BadInput, match=f"metrics: got '{name}'; use top1"):
        metric(name)


def test_classes_weigh_alike() -> None:
    """Weighted, every class contributes as much to the loss; the mean weight of an image is one."""
    labels = torch.tensor([0] * 30 + [1] * 10)
    weights = class_weights(labels)
    assert float(weights[0]) * 30 == pytest.approx(float(weights[1]) * 10)
    assert float(weights[labels].mean()) == pytest.approx(1)
