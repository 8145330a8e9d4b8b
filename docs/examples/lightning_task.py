"""A Lightning `Trainer` as the training loop; the network may come from a checkpoint that Lightning wrote."""

import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import Conv2dNormActivation as Block

from prunefleet import Budget, Supervised, batch, cut


class Training(LightningModule):
    def __init__(self, network, lr=0.05, report=None):
        super().__init__()
        self.network, self.lr, self.report = network, lr, report

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), self.lr, momentum=0.9)

    def training_step(self, pair):
        return nn.functional.cross_entropy(self.network(pair[0]), pair[1].long())

    def optimizer_step(self, epoch, index, optimizer, closure):
        with batch():  # here a measurement on this host pauses the training: the closure computes the batch
            epoch, loss = epoch + (index + 1) / self.trainer.num_training_batches, optimizer.step(closure)
        self.trainer.should_stop = not self.report({"epoch": epoch, "train_loss": float(loss)})


class Bright(Supervised):
    name, metrics = "bright", ("accuracy",)

    def __init__(self, checkpoint=None):  # the sweep file's options; a network that comes trained has 0 epochs
        self.checkpoint, self.dense_budget = checkpoint, lambda: Budget(0 if checkpoint else 5)

    def network(self):
        torch.manual_seed(0)
        network = nn.Sequential(Block(1, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
        if self.checkpoint:  # tensors alone are read
            Training(network).load_state_dict(torch.load(self.checkpoint, "cpu", weights_only=True)["state_dict"])
        return network

    def splits(self):
        images = torch.randn(800, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        return cut({"train": 400, "validation": 100, "holdout": 100, "test": 200}, images, images.mean((1, 2, 3)) > 0)

    def fit(self, network, budget, report):
        seed = torch.Generator().manual_seed(budget.seed)
        batches = DataLoader(TensorDataset(*self.data["train"]), 32, shuffle=True, generator=seed)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(max_steps=round(budget.epochs * len(batches)), max_epochs=-1, **quiet)
        trainer.fit(Training(network.train(), budget.lr or 0.05, report), batches)

    def figures(self, outputs, labels, metric):
        return (outputs.argmax(1) == labels)[:, None]
