"""Torch-Pruning, the doorway to it, imported without what it does not need here.

It imports timm where that is installed, and with it torchvision and torch's compiler, to count the operations of two
layers of transformers: more than half of the seconds that a trial spent on imports.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(module: str) -> Iterator[None]:
    """Inside, an import of `module` fails as if it were not installed; no change where it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own word for it
    try:
        yield
    finally:
        del sys.modules[module]


with without("timm"):
    import torch_pruning as tp
    from torch_pruning.ops import OPTYPE

__all__ = ["OPTYPE", "tp"]
