"""Weights that do not fit a network, in one line: the first layer, its shapes, and how many more."""

import re
from collections.abc import Mapping, Sequence

import torch

SIZE = re.compile(r"size mismatch for (\S+): .*?(\[[\d, ]*\]).*? current model is .*?(\[[\d, ]*\])", re.DOTALL)
MISSING = re.compile(r'Missing key\(s\) in state_dict: "([^"]+)"(.*)')
BEYOND = re.compile(r'Unexpected key\(s\) in state_dict: "([^"]+)"(.*)')


def of_error(error: RuntimeError) -> str | None:
    """The misfit that torch's `load_state_dict` tells in many lines; None for another error."""
    text = str(error)
    if "loading state_dict" not in text:
        return None
    if found := SIZE.search(text):
        return shape(found[1], _sizes(found[2]), _sizes(found[3]), len(SIZE.findall(text)) - 1)
    for pattern, fault in ((MISSING, "lack"), (BEYOND, "have beyond it")):
        if found := pattern.search(text):
            return f"they {fault} {found[1]}{_more(found[2].count(chr(34)) // 2)}"
    return " ".join(text.split())[:160]


def names(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str | None:
    """The first tensor that the weights given lack, else have too many; None where they have the network's."""
    for fault, one, other in (("lack", wanted, given), ("have beyond it", given, wanted)):
        lost = [name for name in one if name not in other and not name.endswith("num_batches_tracked")]
        if lost:
            return f"they {fault} {lost[0]} {tuple(one[lost[0]].shape)}{_more(len(lost) - 1)}"
    return None


def shape(name: str, old: Sequence[int], new: Sequence[int], more: int = 0) -> str:
    """A tensor of another shape than the network's, and how many more there are."""
    return f"{name} has shape {tuple(old)}, not {tuple(new)}{_more(more)}"


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in re.findall(r"\d+", shape)]


def _more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""
