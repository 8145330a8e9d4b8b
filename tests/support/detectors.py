"""Detectors that docs/detection.md shows."""

from typing import Any

from torch import nn

from support.page import shown
from support.paths import ROOT

PAGE = ROOT / "docs" / "detection.md"


def ssdlite(classes: int = 91) -> nn.Module:
    """torchvision's SSDLite with random weights, which returns a dict of two tensors; for [1, 3, 320, 320]."""
    space: dict[str, Any] = {}
    exec(shown(PAGE, "SSDLite"), space)
    network: nn.Module = space["SSDLite"](classes)
    return network.eval()
