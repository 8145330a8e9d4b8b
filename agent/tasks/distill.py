"""Distillation: the dense network's soft targets, each asked for once a host.

The trials of a sweep train on the same augmented batches in the same order, so all put the same questions to the dense
network. Its answers are kept by the content of the batch, and so are right whatever the order.
"""

import contextlib
import copy
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from prunefleet.agent.host.cache_files import cache_folder, only_one, replace_file

# Hinton et al. 2015: how soft the teacher's targets are, and their part of the loss. The teacher sees each augmented
# batch: targets kept from the plain images gained nothing.
TEMPERATURE, TEACHER_SHARE = 4.0, 0.7
LIMIT = 256 * 2**20
"""Bytes of answers kept for one dense network: beyond that the network is asked again, as for large sets of images."""


class SoftTargets:
    """The dense network's log-probabilities at `TEMPERATURE`, kept in the host's cache between trials."""

    def __init__(self, teacher: nn.Module, cache: Path | None = None, limit: int = LIMIT) -> None:
        self._teacher = copy.deepcopy(teacher).eval().to(memory_format=torch.channels_last)
        self._path = (cache or cache_folder()) / "targets" / f"{_fingerprint(teacher)}.safetensors"
        self._limit = limit
        self._kept = _read(self._path)
        self._used: dict[str, torch.Tensor] = {}
        self.asked = 0
        """How often the network itself was asked."""

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """[n, ...] on any device → log-probabilities [n, classes] in float32."""
        if inputs.device.type != "cpu" or not self._room:
            return self._ask(inputs)
        key = hashlib.blake2b(inputs.contiguous().numpy().data, digest_size=16)
        key.update(b"bf16" if torch.is_autocast_enabled("cpu") else b"f32")
        name = key.hexdigest()
        found = self._used.get(name, self._kept.get(name))
        self._used[name] = found = self._ask(inputs) if found is None else found
        return found

    @property
    def _room(self) -> bool:
        return _size(self._used) < self._limit

    def _ask(self, inputs: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return functional.log_softmax(self._teacher.to(inputs.device)(inputs).float() / TEMPERATURE, 1)

    def keep(self) -> None:
        """Write new answers to the cache; without those of other seeds or recipes where both are too much.

        A full disk costs the next trial its time and nothing else.
        """
        if self._used.keys() <= self._kept.keys() or not self._room:
            return
        with contextlib.suppress(OSError), only_one(self._path.with_suffix(".lock")):
            both = _read(self._path) | self._used
            replace_file(self._path, save(both if _size(both) < self._limit else self._used))


class DistilledLoss:
    """Cross-entropy, by classes of these weights if given, and the teacher's soft targets where there is one."""

    def __init__(self, targets: SoftTargets | None, weights: torch.Tensor | None = None) -> None:
        self.targets, self.weights = targets, weights

    def __call__(self, inputs: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[n, ...], [n, classes], [n] → scalar."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        hard = functional.cross_entropy(logits.float(), labels, weights)
        if self.targets is None:
            return hard
        outputs = functional.log_softmax(logits.float() / TEMPERATURE, 1)
        soft = functional.kl_div(outputs, self.targets(inputs), reduction="batchmean", log_target=True) * TEMPERATURE**2
        return TEACHER_SHARE * soft + (1 - TEACHER_SHARE) * hard


def _fingerprint(network: nn.Module) -> str:
    """Of a network's structure and weights, and of the torch that computes it."""
    total = hashlib.sha256(f"{torch.__version__} {TEMPERATURE} {network}".encode())
    for tensor in network.state_dict().values():
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _read(path: Path) -> dict[str, torch.Tensor]:
    """What is kept; nothing where the file is missing or damaged."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError):
        return {}
