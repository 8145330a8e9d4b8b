"""What `prunefleet init` writes: a sweep file, and a task whose network and data are made up."""

import ast
import contextlib
import keyword
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prunefleet.objective.errors import BadInput

OF_A_CLASS = ("recall", "precision", "f1")
IMAGE_METRICS = ("top1", "top5", "balanced_accuracy", *OF_A_CLASS)
"""What pictures with labels are judged by; written here too, for the command line is there before torch is."""
IMPORTED = frozenset({"Budget", "Classification", "Images", "Path", "Supervised", "batch", "cut", "nn", "torch"})
"""Names that a skeleton imports; a class of such a name would hide them."""


@dataclass(frozen=True)
class TaskName:
    """`module:name`, a class of the user's own."""

    module: str
    name: str

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Read it; None for a text without a colon. Raises `BadInput` for names that Python cannot have."""
        module, colon, name = text.partition(":")
        if not colon:
            return None
        for each in (*module.split("."), name):
            if not each.isidentifier() or keyword.iskeyword(each):
                raise BadInput("--network", text, "write MODULE:CLASS with names of Python's, such as my_task:MyTask")
        if name in IMPORTED:
            raise BadInput("--network", text, f"give the class another name: the skeleton imports {name}")
        return cls(module, name)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclass(frozen=True)
class Start:
    """The files to write: pictures in `root` for an `architecture`, or a `task` of the user's own in `task_file`."""

    out: Path
    task: TaskName | None
    metric: str
    max_drop: float
    devices: tuple[str, ...]
    root: str | None = None
    architecture: str = ""
    positive_class: str | None = None
    classes: tuple[str, ...] = ()
    size: int = 64
    task_file: Path | None = None
    made: bool = False

    @property
    def judges_images(self) -> bool:
        """Return whether the metric is one of `prunefleet.Classification`."""
        return self.metric in IMAGE_METRICS or re.fullmatch(r"top[1-9]\d*", self.metric) is not None

    @property
    def name(self) -> str:
        """The sweep's name."""
        data = Path(self.root).name if self.root else ""
        return _plain(self.task.name if self.task else f"{data}-{self.architecture}") or "sweep"


def of(start: Start) -> dict[Path, str]:
    """The files by their paths, the sweep file last."""
    skeleton = {start.task_file: skeleton_of(start)} if start.made and start.task_file else {}
    return {**skeleton, start.out: sweep_file(start)}


def source(root: Path, module: str) -> Path | None:
    """The source of a module below `root`; None where there is none."""
    base = root.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_name(f"{base.name}.py")) if path.is_file()), None)


def defines(path: Path, name: str) -> bool:
    """Return whether a source defines or imports a name at its top; one that cannot be read is left to `check`."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        return name in set(_bound(ast.parse(path.read_text())))
    return True


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))


def sweep_file(start: Start) -> str:
    """The sweep file, each choice with what else there is."""
    from prunefleet.objective.sweepfile import written

    devices = start.devices[0] if len(start.devices) == 1 else list(start.devices)
    return f"""\
# Made by `prunefleet init`: change what you like, then
#   prunefleet check {start.out.name}                # validates everything, one miniature trial
#   prunefleet up {start.out.name} --until-done      # the whole sweep, on this machine
# docs/sweepfile.md has all keys, docs/task.md all options of a task.
name: {written(start.name)}
program: prunefleet
command: ["${{env}}", prunefleet, trial]
method: bayes
metric: {{name: score, goal: maximize}}   # made of the objective below
run_cap: 20                             # trials in all; a network of ten groups or more wants 40 to 60
parameters:
{textwrap.indent(_task_block(start), "  ")}
  objective:
    parameters:
      kind: {{value: fastest}}            # or most_accurate, tradeoff, pareto (docs/objective.md)
      metric: {{value: {written(start.metric)}}}
      max_drop: {{value: {written(start.max_drop)}}}           # how much of it validation may lose: 0.01 is one point
  measure:
    parameters:
      device: {{value: {written(devices)}}}            # this host, or devices of the fleet by name (docs/devices.md)
      precision: {{value: f32}}           # or bf16, f16, int8, or {{values: [f32, int8]}} to search them
      # runner: {{value: torch_cuda}}     # what runs the networks, else openvino_cpu
  recipe:
    parameters:
      epochs: {{value: 2}}                # fine-tuning of each candidate: more is better and slower
{_distill(start)}"""


def _distill(start: Start) -> str:
    if start.judges_images:
        return "      distill: {value: true}            # the dense network teaches while a candidate is fine-tuned\n"
    return "      # distill: {value: true}          # hands `fit` the dense network as budget.teacher\n"


def _task_block(start: Start) -> str:
    from prunefleet.objective.sweepfile import written

    if start.task:
        given = f"root: {{value: {written(start.root)}}}" if start.root else "width: {value: 64}"
        lines = ["options:                              # arguments of the class", "  parameters:", f"    {given}"]
        shown = lines if start.root else [f"# {line}" for line in lines]
        return "\n".join([f"task: {{value: {written(str(start.task))}}}", *shown])
    positive = [f"    positive_class: {{value: {written(start.positive_class)}}}"] if start.positive_class else []
    return "\n".join(
        [
            "task: {value: image_folder}",
            "options:",
            "  parameters:",
            f"    root: {{value: {written(start.root)}}}   # beside this file or below PRUNEFLEET_DATA, or in full",
            *positive,
            f"    architecture: {{value: {written(start.architecture)}}}",
            "    # weights: {value: hub}         # begin with the published ones (from the internet), or with a file",
            f"    size: {{value: {start.size}}}               # pixels of a side",
            "    epochs: {value: 10}             # training of the dense network; 0 where its weights are trained",
        ]
    )


def skeleton_of(start: Start) -> str:
    """A task that runs as it is: labelled images where the metric is theirs, else inputs and targets with a loop."""
    assert start.task is not None
    body = _IMAGES if start.judges_images else _SUPERVISED
    text = body.replace("    # ROOT_\n", _WITH_ROOT if start.root else "")
    text = text.replace("# PATH_\n", "from pathlib import Path\n\n" if start.root else "")
    words = {"CLASS_": start.task.name, "NAME_": _plain(start.task.name).replace("-", "_") or "task"}
    return re.sub("CLASS_|NAME_|METRIC_", lambda found: words.get(found[0], start.metric), text)


def _plain(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", text).strip("-").lower()


_WITH_ROOT = """\
    def __init__(self, root: str) -> None:  # the sweep file's `options`
        self.root = Path(root)

"""
_IMAGES = '''\
"""A network and labelled images. What is made up here stands for yours: see the lines with REPLACE."""

# PATH_
import torch
from prunefleet import Budget, Classification, Images
from torch import nn


class CLASS_(Classification):
    name, metrics = "NAME_", ("METRIC_",)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of values between 0 and 1, one per channel
    batch_size, lr = 64, 0.05  # of fine-tuning

    # ROOT_
    def network(self) -> nn.Module:
        torch.manual_seed(0)  # the same on every call and every host
        # REPLACE by your network, with its trained weights where it has some.
        body = (nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))

    def dense_budget(self) -> Budget:
        return Budget(epochs=2, lr=0.1)  # epochs=0 for a network that comes trained

    def splits(self) -> dict[str, Images]:
        # REPLACE by your images, uint8 [n, channels, h, w], and labels, int64 [n], in a random but fixed order.
        random = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 2, (900,), generator=random)
        noise = torch.randint(0, 150, (900, 3, 32, 32), generator=random)
        pixels = (100 * labels[:, None, None, None] + noise).to(torch.uint8)
        cut = {"train": (0, 600), "validation": (600, 700), "holdout": (700, 800), "test": (800, 900)}
        return {name: Images(pixels[a:b], labels[a:b]) for name, (a, b) in cut.items()}
'''
_SUPERVISED = '''\
"""A network, inputs and targets, a loop and a metric. What is made up here stands for yours: see REPLACE."""

# PATH_
import torch
from prunefleet import Supervised, batch, cut
from torch import nn


class CLASS_(Supervised):
    name, metrics = "NAME_", ("METRIC_",)

    # ROOT_
    def network(self):
        torch.manual_seed(0)  # the same on every call and every host
        # REPLACE by your network, with its trained weights where it has some: then dense_budget() has epochs=0.
        body = (nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))

    def splits(self):
        # REPLACE by your inputs [n, ...] and targets [n, ...], in a random but fixed order.
        random = torch.Generator().manual_seed(0)
        targets = torch.randint(0, 2, (900,), generator=random)
        inputs = torch.randn(900, 3, 32, 32, generator=random) + targets[:, None, None, None]
        return cut({"train": 600, "validation": 100, "holdout": 100, "test": 100}, inputs, targets)

    def fit(self, network, budget, report):
        optimiser = torch.optim.SGD(network.train().parameters(), budget.lr or 0.05, momentum=0.9)
        for step in range(round(16 * budget.epochs)):
            with batch():  # here a measurement on this host pauses the training
                inputs, targets = (each[step % 16 :: 16] for each in self.data["train"])
                loss = nn.functional.cross_entropy(network(inputs), targets)  # REPLACE by your loss
                optimiser.zero_grad(), loss.backward(), optimiser.step()
            if not report({"epoch": (step + 1) / 16, "train_loss": float(loss.detach())}):
                return  # asked to stop

    def figures(self, outputs, targets, metric):
        # REPLACE by what single examples contribute to the metric, [n, k]; it is their mean, or what value() makes of
        # the means: see docs/examples/segmentation.py.
        return (outputs.argmax(1) == targets)[:, None]
'''
