"""One suite for what a network returns: it comes back from every runner, at each precision, as torch gives it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunefleet.agent.compress.quantise import quantise
from prunefleet.agent.measure.export import export, parity
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.agent.measure.outputs import Outputs, named, recorded
from prunefleet.agent.measure.runners.base import Runner
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.onnx_file import onnx_file

from support.networks import Scores, Several
from support.runners import CASES, CLOSE, NAMES, loaded, onnx_on, openvino_on

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
INT8 = (openvino_on, "CPU", "f32")
ROUGH = {**CLOSE, "int8": 0.25}  # some values lie beyond the ranges that calibration saw


@pytest.fixture(scope="module")
def network() -> Several:
    return Several().eval()


@pytest.fixture(scope="module")
def outputs(network: Several) -> Outputs:
    return recorded(network, IMAGES[:1])


@pytest.fixture(scope="module")
def exported(network: Several, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(network, IMAGES[:1], tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def small(exported: Exported) -> Exported:
    pytest.importorskip("nncf")
    return quantise(exported, torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(1)).split(10), "small")


# ONNX takes seconds to import and to write; the suite of the runners has it for one output.
SLOW = [pytest.param(each, marks=pytest.mark.slow if each[0] is onnx_on else ()) for each in (*CASES, INT8)]


@pytest.fixture(params=SLOW, ids=[*NAMES, "openvino_on-CPU-int8"])
def case(request: pytest.FixtureRequest, exported: Exported) -> tuple[Runner, Exported, str]:
    """Every runner in turn with the network that it runs, and the precision that it is held to."""
    make: Callable[[str, str], Runner]
    make, device, precision = request.param
    runner = make(device, precision)
    if request.param is INT8:
        return runner, request.getfixturevalue("small"), "int8"
    return runner, exported, loaded(runner, exported).precision


def deployed(case: tuple[Runner, Exported, str], outputs: Outputs) -> Deployed:
    runner, model, _ = case
    return Deployed(loaded(runner, model), model.input_shape, outputs)


def test_all_come_back_as_torch_gives_them(
    case: tuple[Runner, Exported, str], outputs: Outputs, network: Several
) -> None:
    """For one input and for a batch: containers, names, types and shapes, and the values within the precision."""
    device = deployed(case, outputs)
    for batch in (IMAGES[:1], IMAGES):
        with torch.no_grad():
            wanted: Any = network(batch)
        got = device(batch)
        assert list(got) == list(wanted) and isinstance(got["levels"][1], tuple) and isinstance(got["scores"], Scores)
        assert got["loss"] is None and got["stride"] == 4
        for (name, one), (other, two) in zip(named(got), named(wanted), strict=True):
            assert (name, one.dtype, one.shape) == (other, two.dtype, two.shape)
            if two.is_floating_point():
                assert float((one - two).abs().max()) <= ROUGH[case[2]] * float(two.abs().max()), name
            elif case[2] == "f32":
                assert torch.equal(one, two), name


def test_what_depends_on_no_input_comes_once(case: tuple[Runner, Exported, str], outputs: Outputs) -> None:
    """Anchors keep their shape whatever the size of the batch; the input itself may be an output."""
    got = deployed(case, outputs)(IMAGES)
    assert torch.equal(got["anchors"], torch.arange(12.0).reshape(6, 2))
    assert torch.allclose(got["image"], IMAGES, rtol=0.01) and got["steps"].shape == (16, 3, 4)


def test_files_name_the_outputs_in_order(exported: Exported, small: Exported, outputs: Outputs) -> None:
    """Of the IR, quantised or not, so that who deploys it finds them."""
    for model in (exported, small):
        places = openvino.Core().read_model(model.xml).outputs
        for place, output in zip(places, outputs.tensors, strict=True):
            assert output.name in place.get_names()


@pytest.mark.slow
def test_onnx_names_the_outputs_in_order(exported: Exported, outputs: Outputs) -> None:
    """As the IR does."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    graph = onnx.load(onnx_file(exported)).graph
    assert [each.name for each in graph.output] == [each.name for each in outputs.tensors]


class Spoilt(Several):
    """The same network but for one output."""

    def __init__(self, spoilt: str) -> None:
        super().__init__()
        self.spoilt = spoilt

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        found: dict[str, Any] = super().forward(x)
        value = found[self.spoilt]
        return {**found, self.spoilt: Scores(value.best + 1, value.likely) if self.spoilt == "scores" else value + 0.1}


def test_parity_looks_at_all_outputs(exported: Exported, network: Several) -> None:
    """A network that differs in its first or last output alone, or in one of integers, does not pass."""
    assert parity(exported, network, IMAGES[:1]) < 1e-5
    for spoilt in ("again", "logits", "scores"):
        assert parity(exported, Spoilt(spoilt).eval(), IMAGES[:1]) > 1e-3
