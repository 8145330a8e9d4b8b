"""A Hugging Face `Trainer` as the training loop; the network may come from a `model.safetensors` that it saved."""

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import Conv2dNormActivation as Block
from transformers import Trainer, TrainingArguments

from prunefleet import Budget, Supervised, batch, cut


class WithLoss(nn.Sequential):  # what a Trainer wants: named inputs, and the loss among what comes back
    def forward(self, pixel_values, labels):
        return {"loss": nn.functional.cross_entropy(self[0](pixel_values), labels.long())}


class Loop(Trainer):
    def training_step(self, *args, **more):
        with batch():  # here a measurement on this host pauses the training
            loss = super().training_step(*args, **more)
        epoch = (self.state.global_step + 1) * self.args.train_batch_size / len(self.train_dataset)
        self.control.should_training_stop = not self.report({"epoch": epoch, "train_loss": float(loss)})
        return loss


class Bright(Supervised):
    name, metrics = "bright", ("accuracy",)

    def __init__(self, checkpoint=None):  # the sweep file's options; a network that comes trained has 0 epochs
        self.checkpoint, self.dense_budget = checkpoint, lambda: Budget(0 if checkpoint else 5)

    def network(self):
        torch.manual_seed(0)
        network = nn.Sequential(Block(1, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
        if self.checkpoint:
            WithLoss(network).load_state_dict(load_file(self.checkpoint))
        return network

    def splits(self):
        images = torch.randn(800, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        return cut({"train": 400, "validation": 100, "holdout": 100, "test": 200}, images, images.mean((1, 2, 3)) > 0)

    def fit(self, network, budget, report):
        pairs = [{"pixel_values": image, "labels": label} for image, label in zip(*self.data["train"], strict=True)]
        length = {"max_steps": max(1, round(budget.epochs * 50)), "learning_rate": budget.lr or 0.003}
        quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
        loop = Loop(WithLoss(network), TrainingArguments(".", seed=budget.seed, **length, **quiet), train_dataset=pairs)
        loop.report = report
        loop.train()
        network.cpu()

    def figures(self, outputs, labels, metric):
        return (outputs.argmax(1) == labels)[:, None]
