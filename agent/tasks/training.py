"""Training in steps, batch-norm re-estimation, and the arithmetic type that is fastest on this host."""

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from prunefleet.agent.compress.fold import copied
from prunefleet.agent.host.cache_files import cache_folder, replace_file
from prunefleet.agent.measure import lock
from prunefleet.agent.tasks.task import Task
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(inputs, outputs, targets) → scalar."""


@dataclass(frozen=True)
class Schedule:
    """SGD with Nesterov momentum; the learning rate rises to `lr` over the first part, then falls linearly to 0."""

    lr: float
    steps: int
    warm_up: float = 0.2
    weight_decay: float = 5e-4
    momentum: float = 0.9

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0; never 0, so that no step is idle."""
        done, rising = (step + 0.5) / self.steps, max(self.warm_up, 1e-9)
        return self.lr * min(done / rising, (1 - done) / (1 - self.warm_up))


def train(
    network: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    schedule: Schedule,
    on_step: Callable[[int, float], bool],
    how: "Arithmetic | None" = None,
) -> None:
    """Train in place, a batch a step; `on_step(steps done, loss)` returns False to end now.

    Meanwhile the network is on the device that `how` names; afterwards it is on the processor again. Pauses between
    batches while this host measures. Raises `TrialFailed` of kind DIVERGED when the loss is not finite.
    """
    how = how or Arithmetic()
    try:
        network.train().to(how.device).to(memory_format=how.layout)
        optimiser = Nesterov(network, schedule.momentum, schedule.weight_decay)
        for step, batch in zip(range(schedule.steps), batches, strict=False):
            with lock.batch():
                value = _step(network, batch, loss, how)
                optimiser.step(schedule.rate(step))
            if not math.isfinite(value):
                rate = schedule.rate(step)
                message = f"loss {value} in step {step + 1} of {schedule.steps} at learning rate {rate:.3g}"
                raise TrialFailed(Failure(FailureKind.DIVERGED, "train", message))
            if not on_step(step + 1, value):
                break
    finally:
        network.to("cpu").eval()


class Nesterov:
    """SGD with Nesterov momentum and weight decay (Sutskever et al. 2013), to the digit torch.optim.SGD.

    Making a torch.optim.Optimizer imports torch's compiler, which takes longer than a tenth of a trial.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        self.parameters: list[torch.Tensor] = [
            parameter for parameter in network.parameters() if parameter.requires_grad
        ]
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take a step against the gradients, and forget them."""
        used = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
        parameters, velocity = [self.parameters[i] for i in used], [self.velocity[i] for i in used]
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        gradients = torch._foreach_add(found, parameters, alpha=self.weight_decay)
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_add_(velocity, gradients)
        torch._foreach_add_(gradients, velocity, alpha=self.momentum)
        torch._foreach_add_(parameters, gradients, alpha=-lr)
        for parameter in self.parameters:
            parameter.grad = None


@dataclass(frozen=True)
class Arithmetic:
    """How training computes: in bfloat16 or float32, with the channels of a pixel side by side in memory or not, where.

    `device` is torch's word for it: "cpu" or "cuda".
    """

    bf16: bool = False
    channels_last: bool = True
    device: str = "cpu"

    @property
    def layout(self) -> torch.memory_format:
        """The order of a picture's values in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def told(self) -> dict[str, object]:
        """In the words of a run's summary."""
        words = {"arithmetic": "bf16" if self.bf16 else "f32", "channels_last": self.channels_last}
        return {**words, "trained_on": self.device}


def located(network: nn.Module) -> torch.device:
    """The device that a network is on."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _step(network: nn.Module, batch: Batch, loss: Loss, how: Arithmetic) -> float:
    """One batch forward and backward; returns the loss."""
    inputs, targets = (each.to(how.device) for each in batch)
    inputs = inputs.contiguous(memory_format=how.layout) if inputs.ndim == 4 else inputs
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=how.bf16):
        value = loss(inputs, network(inputs), targets)
    value.backward()  # type: ignore[no-untyped-call]
    return float(value.detach())


def recalibrate(task: Task, network: nn.Module) -> None:
    """Re-estimate batch-norm statistics after pruning: the task's own way, else on its calibration batches."""
    own: Callable[[nn.Module], None] | None = getattr(task, "recalibrate", None)
    if own:
        own(network)
    else:
        re_estimate(network, task.calibration())


@torch.no_grad()
def re_estimate(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace each batch norm's running statistics by the plain average over `batches` of inputs, [n, ...] each."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches alike
    network.eval()
    for norm in norms:
        norm.train()
    for batch in batches:
        with lock.batch():
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def fastest(name: str, network: nn.Module, batch: Batch, loss: Loss, cache: Path | None = None) -> Arithmetic:
    """How training is fastest here: measured once per host, torch and `name`, then remembered."""
    if known := arithmetic(name, cache):
        return known
    with lock.exclusive("training"):
        chosen, seconds = _chosen(network, batch, loss)
    note = {**asdict(chosen), "seconds_per_step": seconds}
    replace_file(_choice(name, cache), json.dumps(note).encode())
    return chosen


def _chosen(network: nn.Module, batch: Batch, loss: Loss) -> tuple[Arithmetic, dict[str, float]]:
    """The quickest arithmetic, and the seconds that a step took with each that was tried."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    told: dict[str, float] = {}

    def seconds(how: Arithmetic, enough: float = math.inf) -> float:
        name = f"{how.device} {'bf16' if how.bf16 else 'f32'}{' channels last' if how.channels_last else ''}"
        told[name] = found = _seconds_per_step(network, batch, loss, how, enough=enough)
        return found

    tried = [Arithmetic(False, last, device) for device in devices for last in (True, False)]
    times = {how: seconds(how) for how in tried}
    best = min(tried, key=times.__getitem__)
    # Without instructions for it, one step in bfloat16 can take longer than a minute: it is not asked for four.
    rounded = replace(best, bf16=True)
    return (rounded if seconds(rounded, 4 * times[best]) < 0.95 * times[best] else best), told


def arithmetic(name: str, cache: Path | None = None) -> Arithmetic | None:
    """How `name` is trained on this host; None where that was not measured yet."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        note = json.loads(_choice(name, cache).read_text())
        found = Arithmetic(note["bf16"], note["channels_last"], note["device"])
        return found if found.device == "cpu" or torch.cuda.is_available() else None
    return None


def _choice(name: str, cache: Path | None) -> Path:
    return (cache or cache_folder()) / "bf16" / f"{name}-{platform.node()}-{torch.__version__}.json"


def _seconds_per_step(
    network: nn.Module,
    batch: Batch,
    loss: Loss,
    how: Arithmetic,
    steps: int = 4,
    enough: float = math.inf,
) -> float:
    """The quickest of some steps after the first one, or the first where that took more than `enough`."""
    trained = copied(network).train().to(how.device).to(memory_format=how.layout)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        _step(trained, batch, loss, how)  # reading the loss waits for the device
        times.append(time.perf_counter() - began)
        if times[0] > enough:
            break
    return min(times[1:] or times)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use that many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
