"""The direction of stripes in noise, told by a small vision transformer: heads and perceptrons are pruned."""

import math

import torch
from torch import nn
from torchvision.models import VisionTransformer

from prunefleet import Budget, Supervised, batch, cut

EACH = 16  # steps of an epoch


class Stripes(Supervised):
    name, metrics = "stripes", ("top1",)

    def network(self):
        torch.manual_seed(0)
        sizes = {"image_size": 32, "patch_size": 8, "hidden_dim": 64, "mlp_dim": 128}
        return VisionTransformer(num_layers=2, num_heads=4, num_classes=6, **sizes)

    def dense_budget(self):
        return Budget(6)

    def splits(self):
        random = torch.Generator().manual_seed(0)
        labels, waves, phases = torch.randint(0, 6, (2000,), generator=random), *torch.rand(2, 2000, generator=random)
        place = torch.arange(32) - 16
        angles = (labels * math.pi / 6)[:, None, None]
        across = angles.cos() * place[None, :, None] + angles.sin() * place[None, None, :]
        stripes = ((0.5 + 0.4 * waves)[:, None, None] * across + 2 * math.pi * phases[:, None, None]).sin()
        images = stripes[:, None] + 2 * torch.randn(2000, 3, 32, 32, generator=random)
        return cut({"train": 1040, "validation": 320, "holdout": 320, "test": 320}, images, labels)

    def fit(self, network, budget, report):
        optimiser = torch.optim.AdamW(network.train().parameters(), weight_decay=0.01)
        steps = round(EACH * budget.epochs)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = (budget.lr or 1e-3) * min(1, (step + 1) / 16, 2 * (1 - step / steps))
            with batch():  # here a measurement on this host pauses the training
                images, labels = (each[step % EACH :: EACH] for each in self.data["train"])
                loss = nn.functional.cross_entropy(network(images), labels)
                optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not report({"epoch": (step + 1) / EACH, "train_loss": float(loss.detach())}):
                return  # asked to stop

    def figures(self, outputs, labels, metric):
        return (outputs.argmax(1) == labels)[:, None]
