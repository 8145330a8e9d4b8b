"""Training steps, batch-norm re-estimation, augmentation and the choice of arithmetic."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunefleet.agent.tasks import training
from prunefleet.agent.tasks.classification import augment
from prunefleet.agent.tasks.networks.resnet import ResNet9
from prunefleet.agent.tasks.training import Arithmetic, Nesterov, Schedule, fastest, re_estimate, train
from prunefleet.objective.trial import FailureKind, TrialFailed

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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_the_arithmetic_is_chosen_once_per_host(
    bf16: bool, last: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16, channels last and the GPU are taken where each is faster, and the measurement is not repeated."""
    wanted, asked = Arithmetic(bf16, last, device), list[Arithmetic]()

    def seconds(network: nn.Module, batch: training.Batch, loss: training.Loss, how: Arithmetic, **_: object) -> float:
        asked.append(how)
        return 1.0 + (how.bf16 != bf16) + (how.channels_last != last) + (how.device != device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(training, "_seconds_per_step", seconds)
    assert fastest("tiny", _small(), (IMAGES, LABELS), _loss, tmp_path) == wanted
    assert fastest("tiny", _small(), (IMAGES, LABELS), _loss, tmp_path) == wanted
    plain = [Arithmetic(False, each, where) for where in ("cpu", "cuda") for each in (True, False)]
    assert asked == [*plain, Arithmetic(True, last, device)]
    assert training.arithmetic("tiny", tmp_path) == wanted and training.arithmetic("other", tmp_path) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the GPU is gone, or in use by others
    assert (training.arithmetic("tiny", tmp_path) is None) == (device == "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA device on this host")
def test_a_network_is_trained_on_the_gpu_and_comes_back() -> None:
    """It learns there, and is on the processor again for its export."""
    network = _small()
    before = copy.deepcopy(network.state_dict())
    train(network, [(IMAGES, LABELS)] * 3, _loss, Schedule(0.1, 3), lambda step, loss: True, Arithmetic(device="cuda"))
    assert training.located(network).type == "cpu" and not network.training
    assert any(not torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_network_is_where_its_weights_are() -> None:
    """One without weights is on the processor."""
    assert training.located(nn.Linear(1, 1, device="meta")).type == "meta"
    assert training.located(nn.ReLU()).type == "cpu"


@pytest.mark.parametrize("last", [True, False])
def test_images_lie_in_memory_as_asked(last: bool) -> None:
    """Weights and inputs have the layout that was chosen."""
    seen: list[bool] = []
    batch = torch.rand(4, 3, 6, 6), torch.zeros(4, dtype=torch.long)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
    train(network, [batch], _loss, Schedule(0.1, 1), lambda step, loss: True, Arithmetic(channels_last=last))
    assert seen == [not last] and network[0].weight.is_contiguous() is not last


def test_the_measurement_of_arithmetic_leaves_the_network_alone(tmp_path: Path) -> None:
    """Weights and statistics are the same after bfloat16 was tried."""
    network = _small()
    before = copy.deepcopy(network.state_dict())
    fastest("tiny", network, (IMAGES, LABELS), _loss, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_slow_arithmetic_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first step in bfloat16 takes many times one in float32 there is no second one."""
    clock, asked = [0.0], []

    def step(network: nn.Module, batch: training.Batch, loss: training.Loss, how: Arithmetic) -> float:
        asked.append(how.bf16)
        clock[0] += 20.0 if how.bf16 else 1.0
        return 0.0

    monkeypatch.setattr(training, "_step", step)
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    assert not fastest("slow", _small(), (IMAGES, LABELS), _loss, tmp_path).bf16
    assert asked == [False] * 8 + [True]


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
