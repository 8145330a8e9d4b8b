"""Detectors with random weights: surveyed, pruned, exported and timed as they are, with several outputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from prunefleet.agent.compress.api import groups, prune
from prunefleet.agent.measure.export import check_parity, export
from prunefleet.agent.measure.runners.base import OpenVINORunner

from support.detectors import ssdlite
from support.yolo_like import yolo_like

DETECTORS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "ssdlite": (ssdlite, 160, 0.5),
    "yolo_like": (yolo_like, 128, 0.6),
}
"""How each is made, the side of its pictures, and the share of its parameters that is more than what stays."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_is_pruned_exported_and_timed(name: str, tmp_path: Path) -> None:
    """Half of the channels of each group go; the export of all outputs computes what torch does, and is faster."""
    make, side, left = DETECTORS[name]
    network, image = make(), torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    kept = {each.name: max(each.width // 2 // each.multiple, 1) * each.multiple for each in groups(network, image)}
    pruned = prune(network, image, kept)
    assert pruned.params < left * sum(parameter.numel() for parameter in network.parameters())
    models = [export(each, image, tmp_path, name=str(at)) for at, each in enumerate((network, pruned.network))]
    assert check_parity(models[1], pruned.network, image) <= 1e-4
    dense, smaller = (OpenVINORunner().load(model) for model in models)
    assert min(smaller.run() for _ in range(20)) < min(dense.run() for _ in range(20))
