"""Blobs in noise, marked by a small U-Net: a task with a loss, a loop and a metric (mean IoU) of its own."""

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation as Block

from prunefleet import Supervised, batch, cut


class UNet(nn.Module):
    def __init__(self, before: int = 1, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        deeper = UNet(width, 2 * width, depth - 1) if depth > 1 else Block(width, 2 * width)
        self.inner = nn.Sequential(nn.MaxPool2d(2), deeper, nn.ConvTranspose2d(2 * width, width, 2, 2))
        self.down, self.mix = Block(before, width), Block(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([y := self.down(x), self.inner(y)], 1))


class Blobs(Supervised):
    name, metrics = "blobs", ("miou",)

    def network(self):
        torch.manual_seed(0)
        return nn.Sequential(UNet(), nn.Conv2d(16, 1, 1))

    def splits(self):
        random = torch.Generator().manual_seed(0)
        masks = nn.Upsample(scale_factor=6, mode="bilinear")(torch.randn(680, 1, 4, 4, generator=random)) > 0.3
        images = masks + 0.7 * torch.randn(680, 1, 24, 24, generator=random)
        return cut({"train": 320, "validation": 120, "holdout": 120, "test": 120}, images, masks.float())

    def fit(self, network, budget, report):
        optimiser = torch.optim.Adam(network.train().parameters(), budget.lr or 0.01)
        for step in range(round(8 * budget.epochs)):
            with batch():  # here a measurement on this host pauses the training
                images, masks = (each[step % 8 :: 8] for each in self.data["train"])
                inside = network(images).sigmoid()
                dice = 1 - 2 * (inside * masks).sum() / (inside + masks).sum()
                loss = nn.functional.binary_cross_entropy(inside, masks) + dice
                optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not report({"epoch": (step + 1) / 8, "train_loss": float(loss.detach())}):
                return  # asked to stop

    def figures(self, outputs, masks, metric):  # of each image: intersection and union of inside, and of outside
        pairs = [(outputs > 0, masks > 0.5), (outputs <= 0, masks < 0.5)]
        return torch.stack([each.sum((1, 2, 3)) for one, other in pairs for each in (one & other, one | other)], 1)

    def value(self, metric, means):
        return (means[..., 0::2] / means[..., 1::2].clamp(min=1e-9)).mean(-1)
