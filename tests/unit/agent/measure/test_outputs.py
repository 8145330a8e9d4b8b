"""Outputs are taken apart for runners and put together again: any containers, and batches of any kind."""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunefleet.agent.measure.export import export, parity
from prunefleet.agent.measure.outputs import arrays, difference, named, recorded, tensors
from prunefleet.agent.measure.runners.base import OpenVINORunner
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.objective.errors import BadInput

BATCH = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Pair(NamedTuple):
    left: Any
    right: Any


class Strict(OrderedDict[str, Any]):
    """A mapping of a library's own, which may be set by items alone."""

    def update(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


class Returning(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, batch: torch.Tensor) -> Any:
        return self.make(batch)


# Each leaf is a number: the place of what it stands for among these.
KINDS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda x: x,
    lambda x: x.mean((2, 3)),
    lambda x: x.flatten(1).argmax(1),
    lambda x: x[:, 0] > 0,
    lambda x: x.flatten(2).permute(2, 0, 1),
    lambda x: x.sum((1, 2, 3)).squeeze(),
    lambda x: torch.arange(6.0).reshape(3, 2),
    lambda x: torch.tensor(2.5),
    lambda x: x.double().amax((2, 3)),
    lambda x: None,
    lambda x: 7,
    lambda x: "grid",
)
LEAVES = st.integers(0, len(KINDS) - 1)
INNER: Callable[[Any], Any] = lambda inner: st.one_of(  # noqa: E731
    st.lists(inner, max_size=3),
    st.lists(inner, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(OrderedDict),
    st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(Strict),
    st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda found: defaultdict(list, found)),
    st.tuples(inner, inner).map(lambda found: Pair(*found)),
)
STRUCTURES = st.recursive(LEAVES, INNER, max_leaves=8)


def made(structure: Any, batch: torch.Tensor) -> Any:
    """The structure with what its numbers stand for."""
    if isinstance(structure, int):
        return KINDS[structure](batch)
    if isinstance(structure, dict):
        found = structure.copy() if isinstance(structure, defaultdict) else type(structure)()
        for key in structure:
            found[key] = made(structure[key], batch)
        return found
    items = [made(each, batch) for each in structure]
    return Pair(*items) if isinstance(structure, Pair) else type(structure)(items)


def assert_same(got: Any, wanted: Any) -> None:
    """Containers, keys, types and values."""
    assert type(got) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert torch.allclose(got, wanted, atol=1e-5)
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            assert_same(got[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    else:
        assert got == wanted


@settings(max_examples=50)
@given(STRUCTURES)
def test_a_batch_is_what_its_inputs_gave(structure: Any) -> None:
    """Whatever the containers, and along whatever dimension a tensor follows the batch."""
    network = Returning(lambda x: made(structure, x))
    if not tensors(network(BATCH[:1])):
        with pytest.raises(BadInput, match=r"network output: got '.*'; return at least one tensor"):
            recorded(network, BATCH[:1])
        return
    outputs = recorded(network, BATCH[:1])
    for batch in (BATCH, BATCH[:1]):
        assert_same(outputs.joined([arrays(network(each)) for each in batch.split(1)]), network(batch))


class Layered(nn.Module):
    """A convolution before what a function makes of it."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.make = nn.Conv2d(2, 2, 1), make

    def forward(self, batch: torch.Tensor) -> Any:
        return self.make(self.conv(batch))


@pytest.mark.slow
@settings(max_examples=60)
@given(structure=st.lists(STRUCTURES, min_size=2, max_size=4))
def test_the_order_of_outputs_is_held_on_a_device(structure: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """OpenVINO merges what is computed twice and folds constants; each tensor still comes where it belongs."""
    network = Layered(lambda x: made(structure, x)).eval()
    if not tensors(network(BATCH[:1])):
        return
    exported = export(network, BATCH[:1], tmp_path_factory.mktemp("order"))
    assert parity(exported, network, BATCH[:1]) < 1e-5
    deployed = Deployed(OpenVINORunner().load(exported), exported.input_shape, recorded(network, BATCH[:1]))
    with torch.no_grad():
        assert_same(deployed(BATCH), network(BATCH))


def test_how_far_two_outputs_are_apart() -> None:
    """Floats by the largest error over the largest value, others by the share that differs beyond one in a hundred."""
    wanted = torch.tensor([1.0, -4.0])
    assert difference(np.array([1.0, -3.0], np.float32), wanted) == 0.25
    assert math.isnan(difference(np.array([1.0, np.nan], np.float32), wanted))
    assert math.isnan(difference(np.zeros(3, np.float32), wanted))
    classes = torch.arange(200)
    assert difference(np.where(np.arange(200) < 2, -1, np.arange(200)), classes) == 0
    assert difference(np.where(np.arange(200) < 52, -1, np.arange(200)), classes) == pytest.approx(0.25)


def test_tensors_have_names() -> None:
    """The keys, fields and places that lead to them."""
    found = {"boxes": BATCH, "levels": [BATCH, Pair(BATCH, None)]}
    assert [name for name, _ in named(found)] == ["boxes", "levels.0", "levels.1.left"]
    assert [name for name, _ in named(BATCH)] == ["output"]


def test_a_figure_of_the_whole_batch_is_not_joined() -> None:
    """One input gives it as torch does; for more the output is named, for a mean of means would be a guess."""
    network = Returning(lambda x: {"logits": x.mean((2, 3)), "loss": x.square().mean()})
    outputs = recorded(network, BATCH[:1])
    assert_same(outputs.joined([arrays(network(BATCH[:1]))]), network(BATCH[:1]))
    with pytest.raises(BadInput, match=r"network output loss: got 'a batch of 3'; compute it in the task's evaluate"):
        outputs.joined([arrays(network(each)) for each in BATCH.split(1)])


def test_a_network_that_takes_one_input_at_a_time_is_joined_by_its_first_dimension() -> None:
    """There is no batch of two to look at."""

    def one(x: torch.Tensor) -> Any:
        if len(x) > 1:
            raise ValueError("one at a time")
        return {"logits": x.mean((2, 3)), "anchors": torch.ones(4, 2)}

    outputs = recorded(Returning(one), BATCH[:1])
    got = outputs.joined([arrays(one(each)) for each in BATCH.split(1)])
    assert got["logits"].shape == (3, 2) and got["anchors"].shape == (4, 2)


def _chosen(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0.1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: {"a": [x, object()]}, "network output a.1: got 'object'; return tensors in tuples, lists or dicts"),
        (lambda x: {"a": torch.fft.rfft2(x)}, "network output a: got 'complex64'; return real, dense tensors"),
        (lambda x: [{"boxes": each} for each in x], r"network output: got 'a list of 1 \(dict\) for one input, a list"),
        (lambda x: {"a": _chosen(x)}, r"network output a: got 'shape \(\d+,\) for one input, \(\d+,\) for another'"),
        (lambda x: {"a": x[:0]}, r"network output a: got 'shape \(0, 2, 4, 4\)'; return tensors with values"),
        (lambda x: (x, len(x)), "network output 1: got '1 for one input, 2 for two'; return it as a tensor"),
        (lambda x: (x, float(x.max())), "network output 1: got '.* for one input, .* for another'; return it as"),
        (lambda x: None, "network output: got 'NoneType'; return at least one tensor"),
    ],
)
def test_what_no_device_gives_is_refused(make: Callable[[torch.Tensor], Any], words: str) -> None:
    """In one line that names the output, what it is, and what to return instead."""
    with pytest.raises(BadInput, match=words) as told:
        recorded(Returning(make), BATCH[:1])
    assert "\n" not in str(told.value)


def test_a_model_written_before_is_one_tensor(tmp_path: Path) -> None:
    """Without a record of outputs there is one, joined along its first dimension."""
    network = Layered(lambda x: x.mean((2, 3))).eval()
    exported = export(network, BATCH[:1], tmp_path)
    with torch.no_grad():
        assert_same(Deployed(OpenVINORunner().load(exported), exported.input_shape)(BATCH), network(BATCH))
