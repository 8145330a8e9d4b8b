"""One trial with a runner of choice, without a server, as a line of JSON.

`python -m studies.cuda.trial demo torch_cuda`
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.tasks.classification import Classification, Images
from prunefleet.agent.tasks.networks.zoo import classifier
from prunefleet.agent.tasks.ready.fashion_mnist import FashionMNIST
from prunefleet.agent.tasks.task import Budget
from prunefleet.agent.tracking.summary import summary
from prunefleet.agent.trial.context import prepare
from prunefleet.agent.trial.request import from_config
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Candidate, TrialFailed

RATIO = 0.5
SHORT = bool(os.environ.get("CUDA_BENCH_SHORT"))
"""A trial of the bench itself, on a few small pictures."""


def made_up(count: int, channels: int, side: int, seed: int) -> Images:
    """Ten classes of noisy stripes, uint8 [count, channels, side, side]."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=random)
    waves = torch.sin(torch.arange(side) * (labels[:, None] + 1) * 0.15)[:, None, None, :]
    pixels = 128 + 60 * waves + 30 * torch.randn(count, channels, side, side, generator=random)
    return Images(pixels.clamp(0, 255).to(torch.uint8), labels)


def parts(sizes: Mapping[str, int], channels: int, side: int) -> dict[str, Images]:
    """Made-up pictures for each split."""
    return {split: made_up(count, channels, side, place) for place, (split, count) in enumerate(sizes.items())}


class Demo(FashionMNIST):
    """The demonstration; with made-up pictures of the same number and size where its own cannot be had."""

    name = "fashion_mnist_cuda"
    made = False

    def splits(self) -> Mapping[str, Images]:
        """As those of the demonstration."""
        if not SHORT:
            try:
                return super().splits()
            except (BadInput, TrialFailed, OSError):
                pass
        self.made = True
        train, other = (300, 100) if SHORT else (50_000, 5_000)
        return parts({"train": train, "validation": other, "holdout": other, "test": other}, 1, 28)


class ResNet50(Classification):
    """A ResNet-50 on made-up pictures."""

    name, made = "resnet50_cuda", True
    metrics = ("top1",)
    batch_size, lr, rungs = 32, 0.02, 1

    def network(self) -> nn.Module:
        """With random weights."""
        return classifier("torchvision/resnet50", classes=10)

    def splits(self) -> Mapping[str, Images]:
        """A few hundred pictures."""
        train, other = (32, 16) if SHORT else (640, 128)
        sizes = {"train": train, "validation": other, "holdout": other, "test": other}
        return parts(sizes, 3, 64 if SHORT else 128)

    def dense_budget(self) -> Budget:
        """Some twenty steps: latency does not depend on weights."""
        return Budget(epochs=1, lr=0.02)


TASKS = {"demo": "studies.cuda.trial:Demo", "resnet50": "studies.cuda.trial:ResNet50"}


def tried(name: str, runner: str) -> dict[str, Any]:
    """What a trial with half of each group's channels gives: its outcome, figures and seconds by stage."""
    began, watch = time.perf_counter(), StageWatch()
    measure = {"runner": runner}
    request = {"task": TASKS[name], "objective": {"kind": "fastest", "max_drop": 0.5}, "measure": measure}
    context = prepare(from_config(request), None, watch.during)
    candidate = Candidate({group.name: RATIO for group in context.space.searched.groups}, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        result = run_trial(candidate, context, Path(folder), watch)
    if not isinstance(result, Trial):
        raise SystemExit(f"the trial of {name} came to no score: {result}")
    words = summary(result.measurement, result.score)
    told = {key: value for key, value in words.items() if isinstance(value, int | float | str)}
    seconds = {stage: round(each, 2) for stage, each in watch.seconds.items()}
    made = bool(getattr(context.task, "made", False))
    return {"trial": name, "made_up": made, "seconds": time.perf_counter() - began, "stages": seconds, "told": told}


if __name__ == "__main__":
    print(json.dumps(tried(*sys.argv[1:])), flush=True)
