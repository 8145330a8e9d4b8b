"""Training steps, batch-norm re-estimation, augmentation and the choice of arithmetic."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from agent.tasks import training
from agent.tasks.classification import augment
from agent.tasks.network import ResNet9
from agent.tasks.training import Nesterov, Schedule, bf16_pays, re_estimate, train
from objective.trial import FailureKind, TrialFailed

IMAGES, LABELS = torch.randn(8, 1, 28, 28), torch.arange(8)


def _loss(_: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def _small() -> ResNet9:
    torch.manual_seed(0)
    return ResNet9(widths=(4, 4, 4, 4))


def test_our_sgd_is_torchs_to_the_digit() -> None:
    """Steps with momentum, weight decay and a changing rate end where torch.optim.SGD's end."""
    ours = _small().train()
    theirs = copy.deepcopy(ours)
    own = Nesterov(ours, 0.9, 5e-4)
    reference = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for rate in (0.1, 0.2, 0.05):
        functional.cross_entropy(ours(IMAGES), LABELS).backward()
        own.step(rate)
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        functional.cross_entropy(theirs(IMAGES), LABELS).backward()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_rate_rises_and_falls() -> None:
    """The learning rate warms up to its peak, falls to nearly nothing, and no step has none."""
    schedule = Schedule(0.2, 100)
    rates = [schedule.rate(step) for step in range(100)]
    assert min(rates) > 0 and max(rates) == pytest.approx(0.2, rel=0.05)
    assert rates.index(max(rates)) in (19, 20) and rates[-1] < 0.002
    assert Schedule(0.2, 1).rate(0) > 0


def test_a_loss_that_is_not_finite_is_the_candidates_failure() -> None:
    """Training ends with a failure of kind diverged that names the step and the rate."""
    batches = iter([(IMAGES, LABELS), (IMAGES * float("nan"), LABELS)])
    with pytest.raises(TrialFailed, match="loss nan in step 2 of 5") as told:
        train(_small(), batches, _loss, Schedule(0.1, 5), lambda step, loss: True)
    assert told.value.failure.kind is FailureKind.DIVERGED and told.value.failure.teaches


def test_training_ends_when_told() -> None:
    """No further batch is drawn after `on_step` returned False."""
    steps: list[int] = []
    train(
        _small(),
        iter([(IMAGES, LABELS)] * 9),
        _loss,
        Schedule(0.1, 9),
        lambda step, loss: bool(steps.append(step) or step < 3),
    )
    assert steps == [1, 2, 3]


def test_re_estimation_averages_all_batches_alike() -> None:
    """Running statistics become the mean over the batches, momentum stays, and the network is left evaluating."""
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(99.0)
    batches = [torch.full((4, 1, 2, 2), 1.0), torch.full((4, 1, 2, 2), 4.0)]
    re_estimate(norm, batches)
    assert float(norm.running_mean) == pytest.approx(2.5)
    assert norm.momentum == 0.1 and not norm.training


def test_the_arithmetic_is_chosen_once_per_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is taken where it is faster, and the measurement is not repeated."""
    monkeypatch.setattr(training, "_seconds_per_step", lambda *given, **_: 0.1 if given[-1] else 0.2)
    assert bf16_pays("tiny", _small(), (IMAGES, LABELS), _loss, tmp_path)
    monkeypatch.setattr(training, "_seconds_per_step", lambda *given, **_: 0.2 if given[-1] else 0.1)
    assert bf16_pays("tiny", _small(), (IMAGES, LABELS), _loss, tmp_path)
    assert not bf16_pays("other", _small(), (IMAGES, LABELS), _loss, tmp_path)
    notes = [json.loads(path.read_text()) for path in (tmp_path / "bf16").iterdir()]
    assert {note["bf16"] for note in notes} == {True, False}


def test_the_measurement_of_arithmetic_leaves_the_network_alone(tmp_path: Path) -> None:
    """Weights and statistics are the same after bfloat16 was tried."""
    network = _small()
    before = copy.deepcopy(network.state_dict())
    bf16_pays("tiny", network, (IMAGES, LABELS), _loss, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_slow_arithmetic_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first step in bfloat16 takes many times one in float32 there is no second one."""
    clock, asked = [0.0], []

    def step(network: nn.Module, batch: training.Batch, loss: training.Loss, bf16: bool) -> float:
        asked.append(bf16)
        clock[0] += 20.0 if bf16 else 1.0
        return 0.0

    monkeypatch.setattr(training, "_step", step)
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    assert not bf16_pays("slow", _small(), (IMAGES, LABELS), _loss, tmp_path)
    assert asked == [False] * 4 + [True]


def test_augmentation_moves_and_mirrors_whole_images() -> None:
    """Each image is its own one shifted by at most two pixels, mirrored or not; about half are mirrored."""
    pixels = torch.randint(1, 255, (64, 2, 9, 9), dtype=torch.uint8)
    moved = augment(pixels, True, 2, torch.Generator().manual_seed(0))
    assert moved.shape == pixels.shape and moved.dtype == torch.uint8
    mirrored = sum(_shift_of(a, b) == "mirrored" for a, b in zip(pixels, moved, strict=True))
    assert 15 < mirrored < 50
    assert torch.equal(augment(pixels, False, 0, torch.Generator()), pixels)
    turned = augment(pixels, False, 0, torch.Generator().manual_seed(0), flip_vertical=True)
    upside_down = [torch.equal(a.flip(1), b) for a, b in zip(pixels, turned, strict=True)]
    assert 15 < sum(upside_down) < 50
    assert all(torch.equal(a, b) for a, b, is_ in zip(pixels, turned, upside_down, strict=True) if not is_)


def _shift_of(image: torch.Tensor, moved: torch.Tensor) -> str:
    for name, source in (("plain", image), ("mirrored", image.flip(2))):
        padded = functional.pad(source, (2, 2, 2, 2))
        for down in range(5):
            for right in range(5):
                if torch.equal(padded[:, down : down + 9, right : right + 9], moved):
                    return name
    raise AssertionError("neither shifted nor mirrored")
