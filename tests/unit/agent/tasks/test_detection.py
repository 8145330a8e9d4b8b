"""Mean average precision: cases made by hand, and what holds whatever the boxes are."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.agent.tasks.detection import COCO, AveragePrecision, Boxes, overlaps_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.stats import Recomputed, bootstrap_interval


def _boxes(rows: Sequence[Sequence[float]], scored: bool = True) -> Boxes:
    """Boxes of rows x1, y1, x2, y2, label, score."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5] if scored else None)


def _random(seed: int, images: int = 6, classes: int = 2) -> tuple[list[Boxes], list[Boxes]]:
    """Objects, and detections near them or anywhere; few different scores, so that they are often equal."""
    random = np.random.default_rng(seed)

    def boxes(n: int) -> np.ndarray:
        corner = random.uniform(0, 40, (n, 2))
        return np.hstack([corner, corner + random.uniform(4, 20, (n, 2))])

    found, true = [], []
    for _ in range(images):
        there, labels = boxes(random.integers(0, 4)), random.integers(0, classes, 3)
        near = there[random.random(len(there)) < 0.8]
        guessed = np.vstack([near + random.normal(0, 1.5, near.shape), boxes(random.integers(0, 3))])
        kinds = np.r_[labels[: len(near)], random.integers(0, classes, len(guessed) - len(near))]
        scores = random.integers(1, 8, len(guessed)) / 8
        true.append(Boxes(torch.tensor(there), torch.tensor(labels[: len(there)])))
        found.append(Boxes(torch.tensor(guessed), torch.tensor(kinds), torch.tensor(scores)))
    return found, true


ONE = _boxes([[0, 0, 10, 10, 0, 0]], scored=False)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([[0, 0, 10, 10, 0, 0.9]], 1.0),
        ([], 0.0),
        ([[0, 0, 10, 10, 1, 0.9]], 0.0),  # of another class
        ([[20, 20, 30, 30, 0, 0.9]], 0.0),  # elsewhere
        ([[0, 0, 10, 10, 0, 0.9], [0, 0, 10, 9, 0, 0.8]], 1.0),  # twice, and the second one is behind
        ([[0, 0, 10, 10, 0, 0.5], [20, 20, 30, 30, 0, 0.9]], 0.5),  # a wrong one first
        ([[0, 0, 10, 10, 0, 0.9], [20, 20, 30, 30, 0, 0.9]], 0.5),  # of equal scores none is first
        ([[0, 0, 10, 5, 0, 0.9]], 1.0),  # overlap of just one half
        ([[0, 0, 10, 4.9, 0, 0.9]], 0.0),
        ([[0, 0, 10, 10, 0, float("nan")]], 0.0),
        ([[float("inf"), 0, 10, 10, 0, 0.9]], 0.0),
    ],
)
def test_one_object(found: list[list[float]], expected: float) -> None:
    """One object of one class: found, missed, found twice, found after a wrong one."""
    assert AveragePrecision([_boxes(found)], [ONE])() == pytest.approx(expected)


def test_recall_is_read_at_101_values() -> None:
    """One of two objects, a wrong box, the other object: precision 1 up to a recall of 0.5, then 2/3."""
    true = _boxes([[0, 0, 10, 10, 0, 0], [20, 0, 30, 10, 0, 0]], scored=False)
    found = _boxes([[0, 0, 10, 10, 0, 0.9], [50, 50, 60, 60, 0, 0.8], [20, 0, 30, 10, 0, 0.7]])
    assert AveragePrecision([found], [true])() == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_claims_what_it_overlaps_most() -> None:
    """A detection takes the object that it fits best, and leaves the other one to the next detection."""
    true = _boxes([[0, 0, 10, 10, 0, 0], [2, 0, 12, 10, 0, 0]], scored=False)
    found = _boxes([[2, 0, 12, 10, 0, 0.9], [0, 0, 10, 10, 0, 0.8]])
    assert AveragePrecision([found], [true], COCO)() == pytest.approx(1.0)


def test_the_mean_is_over_classes_and_overlaps() -> None:
    """A class that is missed counts as 0; an overlap of 0.8 is enough for seven of COCO's ten limits."""
    true = _boxes([[0, 0, 10, 10, 0, 0], [20, 0, 30, 10, 7, 0]], scored=False)
    found = _boxes([[0, 0, 10, 8, 0, 0.9], [20, 0, 30, 10, 3, 0.9]])
    assert AveragePrecision([found], [true])() == pytest.approx(0.5)
    assert AveragePrecision([found], [true], COCO)() == pytest.approx(0.35)


def test_images_without_objects_count_by_their_wrong_boxes() -> None:
    """A wrong box with a high score in an empty picture costs precision; without any object the metric is 0."""
    empty, wrong = _boxes([], scored=False), _boxes([[0, 0, 5, 5, 0, 0.95]])
    right = _boxes([[0, 0, 10, 10, 0, 0.9]])
    assert AveragePrecision([right, wrong], [ONE, empty])() == pytest.approx(0.5)
    assert AveragePrecision([wrong], [empty])() == 0.0
    assert AveragePrecision([right, wrong], [ONE, empty])(torch.tensor([1, 1])) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_what_holds_for_any_boxes(seed: int) -> None:
    """A fraction, 1 for perfect boxes, whatever the order and the scale; a resample is worth what its images are."""
    found, true = _random(seed)
    metric = AveragePrecision(found, true, COCO)
    whole = metric()
    assert 0 <= whole <= 1 and len(metric) == len(true)
    random = np.random.default_rng(seed)
    order = random.permutation(len(true))
    shuffled = [_reordered(found[i], random.permutation(len(found[i].labels))) for i in order]
    assert AveragePrecision(shuffled, [true[i] for i in order], COCO)() == pytest.approx(whole)
    rows = random.integers(0, len(true), 9)
    again = AveragePrecision([found[i] for i in rows], [true[i] for i in rows], COCO)()
    assert metric(torch.from_numpy(rows)) == pytest.approx(again)
    assert metric(torch.arange(len(true)).repeat(3)) == pytest.approx(whole)
    scaled = [Boxes(each.corners, each.labels, each.scores * 0.3) for each in found if each.scores is not None]
    assert AveragePrecision(scaled, true, COCO)() == pytest.approx(whole)
    perfect = [Boxes(each.corners, each.labels, torch.ones(len(each.labels))) for each in true]
    assert AveragePrecision(perfect, true, COCO)() == pytest.approx(float(any(len(each.labels) for each in true)))


def _reordered(boxes: Boxes, order: np.ndarray) -> Boxes:
    assert boxes.scores is not None
    return Boxes(boxes.corners[order], boxes.labels[order], boxes.scores[order])


def test_overlaps_are_shares_of_both_boxes() -> None:
    """Intersection over union of boxes that agree, contain one another, cross, and do not meet."""
    one = np.array([[0.0, 0, 10, 10]])
    other = np.array([[0.0, 0, 10, 10], [0, 0, 5, 10], [5, 5, 15, 15], [10, 0, 20, 10], [30, 30, 40, 40]])
    assert overlaps_of(one, other)[0] == pytest.approx([1, 0.5, 25 / 175, 0, 0])
    assert overlaps_of(other, one)[:, 0] == pytest.approx(overlaps_of(one, other)[0])


def test_the_interval_covers() -> None:
    """The 95 % interval over 60 images holds the metric of a far larger set about so often, and has some width."""
    found, true = _random(0, images=900)
    large, held = AveragePrecision(found, true)(), 0
    for start in range(0, 900, 60):
        part = AveragePrecision(found[start : start + 60], true[start : start + 60])
        low, high = bootstrap_interval(Recomputed(len(part), lambda rows, m=part: m(torch.from_numpy(rows))), n=100)
        held += low <= large <= high
        assert 0.01 < high - low < 0.5
    assert held >= 13  # of 15


def test_wrong_boxes_are_one_line() -> None:
    """Shapes that do not fit, lists of unequal length, and found boxes without scores are named."""
    corners, labels = torch.zeros(3, 4), torch.zeros(3)
    with pytest.raises(BadInput, match=r"corners: got \(2, 4\); give four numbers for each of the 3 labels"):
        Boxes(corners[:2], labels)
    with pytest.raises(BadInput, match=r"scores: got \(2,\); give one for each of the 3 labels"):
        Boxes(corners, labels, torch.zeros(2))
    with pytest.raises(BadInput, match="found: got 1; give the boxes of as many images as there are true ones, 2"):
        AveragePrecision([_boxes([])], [ONE, ONE])
    with pytest.raises(BadInput, match="found: got 'boxes without scores'"):
        AveragePrecision([ONE], [ONE])
