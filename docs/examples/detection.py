"""Objects found in pictures, swept by mean average precision: a task whose metric is no mean over examples."""

import math
from functools import cached_property

import torch
from detector import Detector, boxes_of
from shapes import KINDS, mirrored, pictures

from prunefleet import AveragePrecision, Boxes, Budget, Failure, FailureKind, TrialFailed, batch

AT_ONCE = 16


class Shapes:
    name, metrics = "shapes", ("map50",)

    def __init__(self, train=1200, other=300, epochs=10):
        self.sizes = {"train": train, "validation": other, "holdout": other, "test": other}
        self.epochs = epochs

    def network(self):
        torch.manual_seed(0)
        return Detector(len(KINDS))

    def dense_budget(self):
        return Budget(self.epochs)

    @cached_property
    def data(self):
        made = {split: pictures(count, seed=place) for place, (split, count) in enumerate(self.sizes.items())}
        return {split: (4 * image - 2, *true) for split, (image, *true) in made.items()}

    def example_input(self):
        return self.data["validation"][0][:1]

    def calibration(self):
        return list(self.data["train"][0][:300].split(AT_ONCE))

    def fit(self, network, budget, report):
        optimiser = torch.optim.AdamW(network.train().parameters(), weight_decay=0.01)
        random, each = torch.Generator().manual_seed(budget.seed), math.ceil(self.sizes["train"] / AT_ONCE)
        steps = max(round(each * budget.epochs), 1)
        for step in range(steps):
            if step % each == 0:
                order = torch.randperm(self.sizes["train"], generator=random).split(AT_ONCE)
            done = (step + 0.5) / steps  # the rate rises for a tenth of the steps, then falls
            optimiser.param_groups[0]["lr"] = (budget.lr or 3e-3) * min(done / 0.1, (1 - done) / 0.9)
            with batch():  # here a measurement on this host pauses the training
                images, boxes, kinds = (part[order[step % each]] for part in self.data["train"])
                if step % 2:
                    images, boxes = mirrored(images, boxes)
                found = network(images, boxes, kinds)
                loss = found["classes"] + found["boxes"]
                optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not loss.isfinite():
                raise TrialFailed(Failure(FailureKind.DIVERGED, "train", "the loss is not finite"))
            if not report({"epoch": (step + 1) / each, "train_loss": loss.item()}):
                break  # asked to stop
        network.eval()

    @torch.no_grad()
    def precision(self, network, split, limit=None):
        images, boxes, kinds = (part[:limit] for part in self.data[split])
        found = []
        for part in images.split(AT_ONCE):
            with batch():
                found += boxes_of(network.eval()(part))
        true = [Boxes(box[kind >= 0], kind[kind >= 0]) for box, kind in zip(boxes, kinds, strict=True)]
        return AveragePrecision(found, true)

    def evaluate(self, network, split, limit=None):
        return {"map50": self.precision(network, split, limit)()}

    def resampled(self, network, split, metric):  # for intervals: the metric of any of the pictures
        precision = self.precision(network, split)
        return len(precision), precision
