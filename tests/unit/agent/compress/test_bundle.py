"""A pruned network as files, and back."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from prunefleet.agent.compress import bundle
from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.compress.prune import prune
from prunefleet.objective.errors import BadInput

from support.networks import Residual

IMAGE = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def written(folder: Path) -> nn.Module:
    """A pruned network, in files too."""
    network = Residual(16, (8, 24))
    pruned = prune(network, IMAGE, find_groups(network, IMAGE), {"stem": 6, "down_1": 5}, "random")
    files = bundle.write(folder, pruned.network, pruned.kept)
    assert [file.name for file in files] == ["kept.json", "weights.safetensors"] and all(map(Path.is_file, files))
    return pruned.network.eval()


def test_a_network_comes_back_as_it_was(tmp_path: Path) -> None:
    """Rebuilt from a dense one of other weights, which is left alone."""
    pruned, dense = written(tmp_path / "new"), Residual(16, (8, 24))
    torch.nn.init.zeros_(dense.stem.weight)
    found = bundle.read(tmp_path / "new", dense, IMAGE)
    assert not found.training and torch.equal(found(IMAGE), pruned(IMAGE))
    assert dense.stem.out_channels == 16 and not dense.stem.weight.any()


def test_layers_that_share_a_tensor_are_written(tmp_path: Path) -> None:
    """safetensors refuses shared memory; they come back equal."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)
            self.again = self.second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.again(self.second(self.first(x))).mean((2, 3)))
            return logits

    network = Shared()
    groups = find_groups(network, IMAGE)
    pruned = prune(network, IMAGE, groups, {groups[0].name: 5}).network
    bundle.write(tmp_path, pruned, {groups[0].name: 5})
    found = bundle.read(tmp_path, Shared(), IMAGE)
    assert found.again is found.second and torch.equal(found(IMAGE), pruned.eval()(IMAGE))


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("kept.json", b"{", "kept: got"),
        ("kept.json", b"[1]", "kept: got"),
        ("kept.json", b'{"stem": 0}', r"kept\.stem: got 0"),
        ("kept.json", b'{"stem": 99}', r"kept\.stem: got 99"),
        ("kept.json", b'{"nose": 4}', r"kept\.nose: got 4; name a group"),
        ("kept.json", b'{"stem": 7, "down_1": 5}', "weights: got .*give the dense network it was pruned from"),
        ("weights.safetensors", b"no", "weights: got .*give a whole safetensors file"),
        ("weights.safetensors", None, "weights: got"),
        ("kept.json", None, "kept: got"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, file: str, content: bytes | None, line: str) -> None:
    """In one line, never in a traceback."""
    written(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(BadInput, match=line):
        bundle.read(tmp_path, Residual(16, (8, 24)), IMAGE)


def test_kept_is_plain_json(tmp_path: Path) -> None:
    """Channels by group, all of them."""
    written(tmp_path)
    assert json.loads((tmp_path / "kept.json").read_text()) == {"stem": 6, "down_0": 8, "down_1": 5}
