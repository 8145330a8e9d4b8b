"""What is written to disk computes what torch computes, in full precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunefleet.agent.measure.export import check_parity, export, parity
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

from support.networks import Residual

IMAGE = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_weights_are_stored_in_full_precision(tmp_path: Path) -> None:
    """OpenVINO would round them to half precision by default."""
    network = Residual(16, (8,)).eval()
    exported = export(network, IMAGE, tmp_path, name="dense")
    assert exported.xml == tmp_path / "dense.xml" and exported.input_shape == (1, 1, 16, 16)
    assert exported.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    types = {str(node.get_element_type()) for node in openvino.Core().read_model(exported.xml).get_ops()}
    assert "<Type: 'float16'>" not in types
    assert parity(exported, network, IMAGE) < 1e-5


def test_a_network_is_exported_as_it_would_be_used(tmp_path: Path) -> None:
    """In evaluation mode, whatever mode it is in, and left in that mode with its weights."""
    network = Residual(16, (8,)).train()
    before = [tensor.clone() for tensor in network.state_dict().values()]
    exported = export(network, IMAGE, tmp_path)
    assert network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert parity(exported, network, IMAGE) < 1e-5


def test_a_model_that_computes_something_else_fails_the_trial(tmp_path: Path) -> None:
    """What would ship is then not what was evaluated: a failure that says by how much, and of the host."""
    network = Residual(16, (8,)).eval()
    exported = export(network, IMAGE, tmp_path)
    assert check_parity(exported, network, IMAGE) < 1e-5
    with torch.no_grad():
        network.head.bias += 0.1
    with pytest.raises(TrialFailed, match="exported model differs from torch by") as failed:
        check_parity(exported, network, IMAGE)
    assert failed.value.failure.kind == FailureKind.DEVICE and failed.value.failure.stage == "parity"


def test_an_output_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    """A difference of nothing to nothing is not parity."""
    network = Residual(16, (8,)).eval()
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    exported = export(network, IMAGE, tmp_path)
    assert np.isnan(parity(exported, network, IMAGE))
    with pytest.raises(TrialFailed, match="differs from torch by nan"):
        check_parity(exported, network, IMAGE)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(BadInput, match="precision: got 'f8'; choose one of f32, bf16"):
        export(Residual(16, (8,)), IMAGE, tmp_path / "new", precision="f8")
    assert not (tmp_path / "new").exists()


def test_a_network_that_does_not_convert_fails_the_trial(tmp_path: Path) -> None:
    """In one line, at the stage of the export."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x.flatten(1))

    with pytest.raises(TrialFailed, match="export: device: OpenVINO cannot convert the network"):
        export(Odd(), IMAGE, tmp_path)


def test_openvino_does_not_report_usage() -> None:
    """Its telemetry is replaced by the silent stand-in it brings itself."""
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
