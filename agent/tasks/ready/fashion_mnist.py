"""The demonstration task: Fashion-MNIST and a residual network that two cores train in minutes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from prunefleet.agent.tasks.classification import Classification, Images
from prunefleet.agent.tasks.data import downloads
from prunefleet.agent.tasks.networks.resnet import ResNet9
from prunefleet.agent.tasks.task import Budget, digest
from prunefleet.objective.checks import whole

SEED = 20170825
HELD_BACK = 5000
"""Images of the training part in each of validation and holdout."""


class FashionMNIST(Classification):
    """Train 50,000, validation 5,000 (guides), holdout 5,000 (checks the guide), test 10,000 (read for what ships)."""

    name = "fashion_mnist"
    mean = (0.2860,)
    std = (0.3530,)
    # Short training: small batches take more steps an epoch, and little augmentation needs fewer of them.
    batch_size = 64
    shift = 1

    def __init__(self, limit: int | None = None) -> None:
        """`limit` takes that many images of each split, for trials of the machinery."""
        self.limit = None if limit is None else whole("limit", limit, low=1)

    def network(self) -> nn.Module:
        """ResNet9, initialised from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return ResNet9()

    def dense_budget(self) -> Budget:
        """Two and three quarters epochs at learning rate 0.1: minutes on two cores without AVX-512."""
        return Budget(epochs=2.75, lr=0.1, seed=SEED)

    def splits(self) -> Mapping[str, Images]:
        """The official test part is the test split; the training part is divided by a fixed permutation."""
        files = downloads.fashion_mnist()
        order = _order(len(files["train-labels-idx1-ubyte"]))
        pixels = torch.from_numpy(files["train-images-idx3-ubyte"][order])[:, None]
        labels = torch.from_numpy(files["train-labels-idx1-ubyte"][order].astype(np.int64))
        train = len(order) - 2 * HELD_BACK
        bounds = {"train": (0, train), "validation": (train, train + HELD_BACK), "holdout": (train + HELD_BACK, None)}
        splits = {name: Images(pixels[slice(*ends)], labels[slice(*ends)]) for name, ends in bounds.items()}
        test = files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"].astype(np.int64)
        splits["test"] = Images(torch.from_numpy(test[0].copy())[:, None], torch.from_numpy(test[1]))
        return {name: Images(each.pixels[: self.limit], each.labels[: self.limit]) for name, each in splits.items()}

    def data_hash(self) -> str:
        """Of the files' checksums, the division into splits, and the limit: known before the data is read."""
        return digest(*downloads.SHA256.values(), _order(60000).tobytes(), repr(self.limit))


def _order(count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """A fixed permutation of the training images."""
    return np.random.default_rng(SEED).permutation(count)
