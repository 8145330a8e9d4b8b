"""What a user writes to bring a network and data of their own; docs/task.md shows one in 40 lines."""

import hashlib
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.stats import OfMeans, Quality, Recomputed, Value, mean_itself

SPLITS = ("validation", "holdout", "test")
HASH_VERSION = 2
"""Which rule `task_hash` follows: since 2 the source of this package is left out."""
NOT_THE_USERS = ("abc", "builtins", "typing", "prunefleet")

Report = Callable[[Mapping[str, float]], bool]
"""Called with what training knows (epoch, train_loss, val_<metric>); returns False when training should end now."""


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train: epochs of the training part, peak learning rate (None: the task's own).

    `teacher` is the dense network where knowledge should be distilled from it.
    """

    epochs: float = 1.0
    lr: float | None = None
    seed: int = 0
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        checks.number("recipe.epochs", self.epochs, low=0)
        checks.whole("recipe.seed", self.seed)
        if self.lr is not None:
            checks.positive("recipe.lr", self.lr)


@runtime_checkable
class Task(Protocol):
    """A network, its data, and how to train and evaluate it. Everything has one seed, so that two hosts agree.

    Optional members, used where a task has them: `dense_budget() -> Budget` (training of the dense network; epochs 0
    for a network that comes trained), `recalibrate(network)` (else batch-norm statistics are re-estimated on
    `calibration()`), `data_hash() -> str` and `task_hash() -> str`.

    For intervals, paired between networks, a task tells more than the metric, by one of three methods.
    `correct(network, split) -> Tensor`: a bool for each example, where the first metric is the share that is right.
    `statistics(network, split, metric) -> Tensor`: figures [n, k] of each example, where the metric is a function of
    their means; `value(metric, means) -> Tensor` is that function, [..., k] → [...]: of intersections and unions, say,
    the mean of their quotients; the mean of the first figure where there is no `value`. `resampled(network, split,
    metric) -> (n, function)`: for any other metric, such as mean average precision or the area under a curve, the
    number of examples and the metric of any of them: the function takes numbers of examples, an int64 Tensor [n] from
    0 to n - 1 in which one may come several times, and returns a finite float. It is called 1,000 times for each
    network, so it should look up what the network answered instead of running it again. None instead of the pair
    leaves that metric to the other methods.
    """

    name: str
    metrics: tuple[str, ...]

    def network(self) -> nn.Module:
        """The dense network, freshly initialised or pretrained: the same on every call and every host."""

    def example_input(self) -> torch.Tensor:
        """One input, [1, ...], float."""

    def fit(self, network: nn.Module, budget: Budget, report: Report) -> None:
        """Train the network in place; call `report` every second or so and end when it returns False.

        Wrap each batch in `prunefleet.batch()` so that a measurement on this host can pause the training. Raise
        `TrialFailed` with kind DIVERGED on a loss that is not finite.
        """

    def evaluate(self, network: nn.Module, split: str, limit: int | None = None) -> dict[str, float]:
        """Each metric as a fraction on "validation", "holdout" or "test", on the first `limit` examples if given.

        The order of examples is random but fixed, so that a limit leaves a fair sample.
        """

    def calibration(self) -> Iterable[torch.Tensor]:
        """A few batches of training inputs, [n, ...], the same on every call."""


def dense_budget(task: Task) -> Budget:
    """How the dense network is trained: what the task says, else 10 epochs."""
    own: Callable[[], Budget] | None = getattr(task, "dense_budget", None)
    return own() if own else Budget(epochs=10)


Resampled = tuple[int, Callable[[torch.Tensor], float]]


def quality_of(task: Task, network: nn.Module, split: str, metric: str) -> Quality | None:
    """A network's metric on a split with what its interval is made of; None where the task does not tell that.

    Raises `BadInput` where the task's `resampled` gives anything but a number of examples and a function, or None.
    """
    anew: Callable[[nn.Module, str, str], Resampled | None] | None = getattr(task, "resampled", None)
    if (found := anew(network, split, metric) if anew else None) is not None:
        return _recomputed(found)
    figures = statistics(task, network, split, metric)
    return None if figures is None else OfMeans(figures.double().numpy(), value_of(task, metric))


def _recomputed(found: object) -> Recomputed:
    match found:
        case (int() as count, of_rows) if callable(of_rows):
            return Recomputed(count, lambda rows: float(of_rows(torch.from_numpy(rows))))
    remedy = "return the number of examples and a function of their numbers, or None"
    raise BadInput("what `resampled` returns", found, remedy)


def interval_by(task: Task, metric: str) -> str:
    """The task's method that gives a metric its interval, in a few words; where there is none, what to do."""
    if names := [name for name in ("resampled", "statistics") if hasattr(task, name)]:
        return f"interval of {metric} by `{names[0]}`"
    if hasattr(task, "correct") and metric == task.metrics[0]:
        return f"interval of {metric} by `correct`"
    return f"no interval of {metric}: give the task resampled(network, split, metric), see docs/task.md"


def statistics(task: Task, network: nn.Module, split: str, metric: str) -> torch.Tensor | None:
    """Figures [n, k] of each example, by `statistics` or `correct` of the task; None where it has neither."""
    own: Callable[[nn.Module, str, str], torch.Tensor] | None = getattr(task, "statistics", None)
    if own:
        return own(network, split, metric)
    correct: Callable[[nn.Module, str], torch.Tensor] | None = getattr(task, "correct", None)
    return correct(network, split)[:, None] if correct and metric == task.metrics[0] else None


def value_of(task: Task, metric: str) -> Value:
    """What makes `metric` of the means of `statistics`: the task's `value`, else the mean itself."""
    own: Callable[[str, torch.Tensor], torch.Tensor] | None = getattr(task, "value", None)
    if own is None:
        return mean_itself
    return lambda means: own(metric, torch.from_numpy(means)).double().numpy()


def task_hash(task: Task) -> str:
    """Hash of the task's code and options: its own word, else of the source of its classes and of the network's shapes.

    Classes of this package are left out, so that a new version of it refuses no planned sweep. Where the sweep names
    the task's code, that is in it too. Raises `BadInput` for a class without a source file, such as one typed into a
    notebook.
    """
    options: Mapping[str, object] = getattr(task, "given_options", {})
    return digest(_code_hash(task), repr(sorted(options.items()))) if options else _code_hash(task)


_reading = threading.Lock()  # Python 3.11's parser, which finds a class in its file, fails in two threads at once


def _code_hash(task: Task) -> str:
    own: Callable[[], str] | None = getattr(task, "task_hash", None)
    if own:
        return own()
    shapes = {name: tuple(tensor.shape) for name, tensor in task.network().state_dict().items()}
    classes = [kind for kind in type(task).__mro__ if kind.__module__.partition(".")[0] not in NOT_THE_USERS]
    try:
        with _reading:
            sources = [inspect.getsource(kind) for kind in classes]
        code: str | None = getattr(task, "given_code", None)
        return digest(*sources, repr(shapes), *([code] if code else []))
    except (OSError, TypeError) as error:
        raise BadInput("task", type(task).__name__, "put its class into a file, or give it task_hash()") from error


def named_data(task: Task) -> str | None:
    """The task's own word for its data, the same on every host that has it; None where it has none."""
    own: Callable[[], str] | None = getattr(task, "data_hash", None)
    return own() if own else None


def data_hash(task: Task) -> str:
    """Hash of the task's data: its own word, else that of its calibration batches."""
    return named_data(task) or digest(*(batch.contiguous().numpy().tobytes() for batch in task.calibration()))


def digest(*parts: str | bytes) -> str:
    """SHA-256 of the parts in hexadecimal; where one ends and the next begins matters."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()
