"""Scratches on one part in five: the metric is the recall of defects, and the loss weighs them more."""

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation as Block

from prunefleet import Supervised, batch, cut


class Scratches(Supervised):
    name, metrics = "scratches", ("recall", "accuracy")

    def network(self):
        torch.manual_seed(0)
        body = (Block(1, 32, stride=2), Block(32, 64), Block(64, 64, stride=2))
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))

    def splits(self):
        random = torch.Generator().manual_seed(0)
        defective = torch.rand(2000, generator=random) < 0.2
        images = torch.randn(2000, 1, 24, 24, generator=random)
        images[torch.arange(2000), 0, torch.randint(0, 24, (2000,), generator=random)] += 1.3 * defective[:, None]
        return cut({"train": 800, "validation": 400, "holdout": 400, "test": 400}, images, defective.long())

    def fit(self, network, budget, report):
        optimiser = torch.optim.SGD(network.train().parameters(), budget.lr or 0.05, momentum=0.9)
        for step in range(round(16 * budget.epochs)):
            with batch():  # here a measurement on this host pauses the training
                images, labels = (each[step % 16 :: 16] for each in self.data["train"])
                loss = nn.functional.cross_entropy(network(images), labels, torch.tensor([1.0, 4.0]))
                optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not report({"epoch": (step + 1) / 16, "train_loss": float(loss.detach())}):
                return  # asked to stop

    def figures(self, outputs, labels, metric):
        right, defective = outputs.argmax(1) == labels, labels == 1
        return torch.stack([right & defective, defective], 1) if metric == "recall" else right[:, None]

    def value(self, metric, means):  # recall: found of all defects; accuracy: right of all parts
        return means[..., 0] / means[..., 1].clamp(min=1e-9) if metric == "recall" else means[..., 0]
