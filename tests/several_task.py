"""The tiny task with a network that returns tensors in a dict and a tuple, as detectors do."""

import torch
from tiny_task import WIDTH, TinyTask
from torch import nn

from prunefleet.agent.tasks.task import Budget, Report


class Heads(nn.Module):
    """Convolutions with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, WIDTH, 3, 2, 1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)
        self.map, self.head = nn.Conv2d(WIDTH, 2, 1), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        """[n, 1, 8, 8] → logits [n, 4], and the sizes of a map [n, 2, 2, 2] beside the map itself."""
        y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        found = self.map(y)
        return {"maps": (found, found.abs()), "logits": self.head(y.mean((2, 3)))}


class SeveralTask(TinyTask):
    name, metrics = "several", ("top1",)

    def network(self) -> nn.Module:
        return Heads()

    def fit(self, network: nn.Module, budget: Budget, report: Report) -> None:
        optimiser = torch.optim.SGD(network.train().parameters(), budget.lr or self.lr, momentum=0.9)
        batches = self.batches(self.images["train"], budget.seed)
        for step, (inputs, labels) in zip(range(round(12 * budget.epochs)), batches, strict=False):
            found = network(inputs)
            loss = nn.functional.cross_entropy(found["logits"], labels) + found["maps"][1].mean()
            optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not report({"epoch": (step + 1) / 12, "train_loss": float(loss.detach())}):
                break
        network.eval()

    @torch.no_grad()
    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        images = self.images[split]
        found = network.eval()(self.prepare(images.pixels[:limit]))
        assert isinstance(found["maps"], tuple) and found["maps"][0].shape == (len(found["logits"]), 2, 2, 2)
        return {"top1": float((found["logits"].argmax(1) == images.labels[:limit]).double().mean())}

    correct = statistics = None  # what single examples contribute is not told
