"""Proven groups as a file."""

from pathlib import Path

import torch
from torch import nn

from prunefleet.agent.compress.groups import survey
from prunefleet.agent.compress.proof import record


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 3)
    return nn.Sequential(*layers).eval()


def test_groups_come_back_as_they_were(tmp_path: Path) -> None:
    """With their slots, which decide what is cut."""
    found = survey(network(), torch.zeros(1, 3, 8, 8))
    record.write(tmp_path / "proof.json", found.groups, found.whole)
    back = record.read(tmp_path / "proof.json")
    assert back is not None
    groups, whole = back
    assert repr(groups) == repr(found.groups) and whole == found.whole
    assert [group.slots for group in groups] == [group.slots for group in found.groups]
    assert [group.tied for group in groups] == [group.tied for group in found.groups]


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    """Nothing, half of one, and one of another format: the groups are proven anew."""
    path = tmp_path / "proof.json"
    assert record.read(path) is None
    found = survey(network(), torch.zeros(1, 3, 8, 8))
    record.write(path, found.groups, found.whole)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert record.read(path) is None
    path.write_text(whole.replace(f'"format": {record.FORMAT}', '"format": 0'))
    assert record.read(path) is None
