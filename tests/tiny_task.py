"""A task as small as one can be: noisy 8 × 8 patterns, a network of three convolutions, trained in a second."""

import os
import time

import torch
from torch import nn

from prunefleet.agent.tasks.classification import Classification, Images
from prunefleet.agent.tasks.task import Budget, Report

SIZES = {"train": 768, "validation": 500, "holdout": 500, "test": 500}
SECONDS = float(os.environ.get("TINY_SECONDS", "0"))  # each fit lasts at least so long
WIDTH = int(os.environ.get("TINY_WIDTH", "64"))  # fewer channels make fewer candidates to time
SIDE = int(os.environ.get("TINY_SIDE", "8"))  # larger where channels must tell in the latency on any processor


class TinyTask(Classification):
    name, metrics = "tiny", ("top1",)
    batch_size, flip, shift, lr = 64, False, 0, 0.05

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential()
        for index, before in enumerate((1, WIDTH, WIDTH), start=1):
            net.add_module(f"conv{index}", nn.Conv2d(before, WIDTH, 3, 2, 1, bias=False))
            net.add_module(f"rest{index}", nn.Sequential(nn.BatchNorm2d(WIDTH), nn.ReLU()))
        if SIDE > 8:
            net.add_module("pool", nn.AvgPool2d(SIDE // 8))
        net.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 4)))
        return net

    def splits(self) -> dict[str, Images]:
        random = torch.Generator().manual_seed(0)
        patterns = torch.randint(0, 256, (4, 1, SIDE, SIDE), generator=random)
        labels = torch.randint(0, 4, (sum(SIZES.values()),), generator=random)
        noise = torch.randint(-200, 201, (len(labels), 1, SIDE, SIDE), generator=random)
        pixels = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
        parts = zip(pixels.split(list(SIZES.values())), labels.split(list(SIZES.values())), strict=True)
        return {name: Images(*part) for name, part in zip(SIZES, parts, strict=True)}

    def dense_budget(self) -> Budget:
        return Budget(epochs=4, lr=0.1)

    def fit(self, network: nn.Module, budget: Budget, report: Report) -> None:
        torch.set_num_threads(1)  # of so small a network more threads only wait for each other
        until = time.monotonic() + SECONDS
        super().fit(network, budget, report)
        while time.monotonic() < until and report({"epoch": budget.epochs}):
            time.sleep(0.1)
