"""The detection example: its pictures, its losses, and the boxes that it makes of a network's answers."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.agent.tasks.detection import AveragePrecision, Boxes

from support.detectors import PAGE
from support.page import shown
from support.paths import ROOT

SIDE = 64


@pytest.fixture(scope="module")
def shapes() -> Iterator[ModuleType]:
    yield from _example("shapes")


@pytest.fixture(scope="module")
def detector() -> Iterator[ModuleType]:
    yield from _example("detector")


def _example(name: str) -> Iterator[ModuleType]:
    """A module of docs/examples, which leaves no trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "examples"))
        yield importlib.import_module(name)
        sys.modules.pop(name)


def test_pictures_are_made_by_a_seed(shapes: ModuleType) -> None:
    """The same seed gives the same pictures whatever their number, another seed others."""
    one, again, longer, other = (shapes.pictures(n, seed=seed) for n, seed in ((50, 1), (50, 1), (60, 1), (50, 2)))
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    assert all(torch.equal(first, part[:50]) for first, part in zip(one, longer, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_objects_are_where_their_boxes_are(shapes: ModuleType) -> None:
    """Each picture has an object; all kinds occur; boxes are in the picture, and zeros where there is none."""
    images, boxes, kinds = shapes.pictures(100)
    there = kinds >= 0
    assert images.shape == (100, 3, SIDE, SIDE) and 0 <= images.min() < images.max() <= 1
    assert there.any(1).all() and set(kinds[there].tolist()) == set(range(len(shapes.KINDS)))
    assert (boxes[~there] == 0).all()
    sizes = boxes[there][:, 2:] - boxes[there][:, :2]
    assert boxes.min() >= 0 and boxes.max() <= SIDE and sizes.min() >= 3 and sizes.max() <= 0.6 * SIDE


def test_a_box_is_drawn_around_what_is_marked(shapes: ModuleType) -> None:
    """The box of marked pixels is the tightest one: from their first column and row to behind the last ones."""
    marked = torch.zeros(2, 6, 8, dtype=torch.bool)
    marked[0, 2, 3] = marked[1, 0, 1] = marked[1, 5, 7] = True
    assert shapes._box(marked).tolist() == [[3, 2, 4, 3], [1, 0, 8, 6]]


def test_a_mirrored_picture_has_mirrored_boxes(shapes: ModuleType) -> None:
    """The box of a mirrored mark is the mirrored box of the mark, and mirrored twice all is as before."""
    marked = torch.zeros(1, 3, SIDE, SIDE)
    marked[..., 10:20, 3:9] = 1.0
    boxes = shapes._box(marked[:, 0] > 0)[None]
    image, turned = shapes.mirrored(marked, boxes)
    assert torch.equal(turned[0], shapes._box(image[:, 0] > 0))
    assert torch.equal(shapes.mirrored(image, turned)[1], boxes)


def _ideal(detector: ModuleType, boxes: torch.Tensor, kinds: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """What a network would answer that knows each object, at the cell of its scale that its middle is in."""
    found: dict[str, list[torch.Tensor]] = {"boxes": [], "classes": []}
    for stride in detector.STRIDES:
        side = SIDE // stride
        distances, scores = torch.zeros(len(boxes), 4, side, side), torch.full((len(boxes), 3, side, side), -20.0)
        for picture, place in (kinds >= 0).nonzero().tolist():
            box = boxes[picture, place]
            large = bool((box[2:] - box[:2]).max() >= detector.LARGE)
            if large == (stride == detector.STRIDES[1]):
                column, row = ((box[:2] + box[2:]) / 2 / stride).long().tolist()
                middle = stride * (torch.tensor([column, row]) + 0.5)
                away = torch.cat([middle - box[:2], box[2:] - middle]) / stride
                distances[picture, :, row, column] = away.expm1().log()  # softplus of this is `away`
                scores[picture, kinds[picture, place], row, column] = 9.0
        found["boxes"].append(distances)
        found["classes"].append(scores)
    return found


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ideal_answers_are_read_as_the_true_boxes(shapes: ModuleType, detector: ModuleType, seed: int) -> None:
    """Answers that tell each object give just its box and kind, and so a mean average precision of 1."""
    _, boxes, kinds = shapes.pictures(3, seed=seed)
    found = detector.boxes_of(_ideal(detector, boxes, kinds))
    true = [Boxes(box[kind >= 0], kind[kind >= 0]) for box, kind in zip(boxes, kinds, strict=True)]
    assert [len(each.labels) for each in found] == [len(each.labels) for each in true]
    assert AveragePrecision(found, true, (0.99,))() == pytest.approx(1.0)


def test_losses_fall_as_answers_get_better(shapes: ModuleType, detector: ModuleType) -> None:
    """Ideal answers cost less than those for other pictures; without an object only the scores cost anything."""
    _, boxes, kinds = shapes.pictures(8)
    ideal = _ideal(detector, boxes, kinds)
    wrong = {name: [each.flip(0) for each in maps] for name, maps in ideal.items()}
    good, bad = detector.losses(ideal, boxes, kinds), detector.losses(wrong, boxes, kinds)
    assert good["boxes"] < bad["boxes"] and good["classes"] < bad["classes"]
    empty = detector.losses(ideal, torch.zeros_like(boxes), torch.full_like(kinds, -1))
    assert empty["boxes"] == 0 and empty["classes"] > 0


def test_the_task_for_ultralytics_is_short() -> None:
    """It is Python of at most 40 lines."""
    code = shown(PAGE, "Yolo")
    compile(code, "yolo.py", "exec")
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
