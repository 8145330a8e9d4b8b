"""The dense network's soft targets."""

from pathlib import Path

import pytest
import torch
from tiny_task import TinyTask
from torch import nn

from prunefleet.agent.tasks import classification
from prunefleet.agent.tasks.distill import DistilledLoss, SoftTargets
from prunefleet.agent.tasks.task import Budget


def teacher(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def batches(count: int, seed: int = 1) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 1, 2, 2, generator=random) for _ in range(count)]


def test_a_second_trial_gets_the_same_targets_without_asking(tmp_path: Path) -> None:
    """Targets kept by one trial are those of the network to the last bit, in whatever order they are wanted."""
    first, given = SoftTargets(teacher(), tmp_path), batches(5)
    wanted = [first(batch) for batch in given]
    first.keep()
    second = SoftTargets(teacher(), tmp_path)
    found = [second(batch) for batch in reversed(given)]
    assert second.asked == 0
    assert all(torch.equal(one, other) for one, other in zip(wanted, reversed(found), strict=True))


def test_other_questions_and_other_teachers_are_asked(tmp_path: Path) -> None:
    """Neither another batch nor another dense network is answered from the cache; both then stand in it."""
    first = SoftTargets(teacher(), tmp_path)
    for batch in batches(3):
        first(batch)
    first.keep()
    more = SoftTargets(teacher(), tmp_path)
    for batch in batches(4, seed=2):
        more(batch)
    more.keep()
    other = SoftTargets(teacher(seed=1), tmp_path)
    other(batches(1)[0])
    again = SoftTargets(teacher(), tmp_path)
    for batch in [*batches(3), *batches(4, seed=2)]:
        again(batch)
    assert (more.asked, other.asked, again.asked) == (4, 1, 0)


def test_half_precision_has_targets_of_its_own(tmp_path: Path) -> None:
    """What was computed in bfloat16 is not taken for what float32 gives."""
    targets, batch = SoftTargets(teacher(), tmp_path), batches(1)[0]
    exact = targets(batch)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = targets(batch)
    assert targets.asked == 2
    assert not torch.equal(exact, coarse)


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """What would pass the limit is not kept: the newest recipe's answers stay, and too many are none."""
    one = 2 * 3 * 4  # bytes of a batch's answers
    for seed in (1, 2):
        targets = SoftTargets(teacher(), tmp_path, limit=5 * one)
        for batch in batches(4, seed):
            targets(batch)
        targets.keep()
    kept = SoftTargets(teacher(), tmp_path, limit=5 * one)
    for batch in batches(4, seed=2):
        kept(batch)
    assert kept.asked == 0
    many = SoftTargets(teacher(), tmp_path / "many", limit=5 * one)
    for batch in batches(9):
        many(batch)
    many.keep()
    assert not list(tmp_path.glob("many/targets/*.safetensors"))


@pytest.mark.parametrize("damage", [b"", b"not a tensor", None])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, damage: bytes | None) -> None:
    """A file that is missing or cannot be read costs time alone, and is replaced."""
    targets, batch = SoftTargets(teacher(), tmp_path), batches(1)[0]
    wanted = targets(batch)
    targets.keep()
    (path,) = tmp_path.glob("targets/*.safetensors")
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    again = SoftTargets(teacher(), tmp_path)
    assert torch.equal(again(batch), wanted)
    again.keep()
    last = SoftTargets(teacher(), tmp_path)
    last(batch)
    assert (again.asked, last.asked) == (1, 0)


def test_without_a_teacher_the_loss_is_cross_entropy() -> None:
    """No teacher, no soft targets."""
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = DistilledLoss(None)(torch.zeros(5), logits, labels)
    assert torch.allclose(loss, nn.functional.cross_entropy(logits, labels))


def test_training_is_the_same_with_and_without_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of one seed end with equal weights, the second without asking the dense network."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    made: list[SoftTargets] = []

    def remembered(network: nn.Module) -> SoftTargets:
        made.append(SoftTargets(network))
        return made[-1]

    monkeypatch.setattr(classification, "SoftTargets", remembered)
    weights = []
    for _ in range(2):
        task = TinyTask()
        network = task.network()
        task.fit(network, Budget(epochs=1, seed=3, teacher=task.network()), lambda row: True)
        weights.append(network.state_dict())
    assert made[0].asked > 0
    assert made[1].asked == 0
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_training_broken_off_keeps_what_it_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in mid-training leaves the answers so far to the next attempt."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    task = TinyTask()
    task.fit(task.network(), Budget(epochs=1, teacher=task.network()), lambda row: False)
    assert list(tmp_path.glob("targets/*.safetensors"))
