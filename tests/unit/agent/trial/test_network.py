"""What cannot ship is told before anything is trained, in one line: the layer or output, the reason, the remedy."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from several_task import Heads, SeveralTask
from torch import nn

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.runners.base import OpenVINORunner, supported_precisions
from prunefleet.agent.trial import context as context_module
from prunefleet.agent.trial.network import calibration_size, check_finite, check_network, made
from prunefleet.agent.trial.request import from_config
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.agent.trial.values import reads
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Candidate

from support.paths import ROOT
from support.trial_context import CONFIG, tiny_context

IMAGE = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Task:
    """As much of a task as is looked at."""

    name: ClassVar[str] = "mine"

    def __init__(self, make: Callable[[], nn.Module] = nn.Identity, image: torch.Tensor = IMAGE) -> None:
        self.network, self._image = make, image

    def example_input(self) -> torch.Tensor:
        return self._image

    def calibration(self) -> list[torch.Tensor]:
        return [self._image]


class Layer(nn.Module):
    """A layer that computes what a function says."""

    def __init__(self, what: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.what(x)


class Small(nn.Module):
    """Two convolutions, a layer of one's own, and a head."""

    def __init__(self, what: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.gate, self.head = Layer(what), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.gate(self.body(x))
        return {"map": y, "logits": self.head(y.mean((2, 3)))}


def checked(network: nn.Module, image: torch.Tensor = IMAGE) -> str:
    task: Any = Task(image=image)
    return str(check_network(task, network.eval(), OpenVINORunner(), "f32"))


def test_a_network_that_can_ship_says_what_it_returns() -> None:
    """Each output by name, with its shape for one input; the network stays in its mode."""
    network = Small().train()
    task: Any = Task()
    assert str(check_network(task, network, OpenVINORunner(), "f32")) == "map [1, 8, 16, 16], logits [1, 3]"
    assert network.training


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (
            [(IMAGE, torch.zeros(1))],
            r"calibration: got 'tuple'; yield float tensors \[n, 1, 16, 16\] of inputs alone, .* without",
        ),
        ([IMAGE[..., :8]], "calibration: got '1 inputs, none of this shape'; yield float tensors"),
        ([IMAGE.to(torch.uint8)], "calibration: got 'uint8'; yield float tensors"),
        ([], "calibration: got '0 inputs, none"),
    ],
)
def test_calibration_yields_inputs_as_forward_takes_them(batches: list[Any], words: str) -> None:
    """Else it is told before anything is trained."""
    task: Any = Task()
    task.calibration = lambda: batches
    with pytest.raises(BadInput, match=words):
        calibration_size(task)
    task.calibration = lambda: [IMAGE[..., :8], IMAGE.repeat(3, 1, 1, 1)]
    assert calibration_size(task) == 4


def _if_positive(x: torch.Tensor) -> torch.Tensor:
    return 2 * x if x.mean() > 0 else x


def _by_its_largest(x: torch.Tensor) -> torch.Tensor:
    return x / float(x.max())


def _as_often(x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.abs().sum().item()) % 7):
        x = x + 1
    return x


@pytest.mark.parametrize("what", [_if_positive, _by_its_largest, _as_often])
def test_a_forward_that_goes_by_values_is_refused(what: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The export would go on as it went for one input; the layer that reads the value is named."""
    words = "a choice by values, .*" if what is _if_positive else ".* for one input, .* for another"
    with pytest.raises(BadInput, match=f"network.gate: got '{words}'; its forward reads this value in Python"):
        checked(Small(what))


def _sound(x: torch.Tensor) -> torch.Tensor:
    if x.isnan().any() or x.shape[1] != 8 or int(torch.arange(4)[2]) != 2:
        raise ValueError("not a number")
    return x


def test_a_check_that_no_input_fails_is_no_choice() -> None:
    """Values that decide nothing may be read, and so may those that are made of no input, and shapes."""
    assert checked(Small(_sound)) == "map [1, 8, 16, 16], logits [1, 3]"
    found, _ = reads(Small(_sound).eval(), IMAGE)
    assert [(each.layer, each.value) for each in found] == [("gate", False)]


def _bare(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.detach().numpy() * 2) + 0 * x


def test_a_forward_that_leaves_torch_is_refused() -> None:
    """Its export would hold what numpy gave for one input."""
    with pytest.raises(BadInput, match=r"network: got 'a difference of .* its export computes something else"):
        checked(Small(_bare))


def _singular(x: torch.Tensor) -> torch.Tensor:
    return x + torch.linalg.svdvals(x.flatten(2))[..., None, None]


def test_an_operation_that_cannot_be_exported_is_named() -> None:
    """With the layer that has it."""
    with pytest.raises(BadInput, match=r"network\.gate: got 'aten::linalg_svdvals'; OpenVINO has no such operation"):
        checked(Small(_singular))


def test_numbers_that_are_not_finite_are_found() -> None:
    """The output and the first layer; an input of such numbers is told as what it is."""
    network = Small().eval()
    with torch.no_grad():
        network.body[2].weight[0, 0, 0, 0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(BadInput, match=r"network output map: got 'nan'; the numbers stop being finite in body\.2"):
        check_finite(network, IMAGE)
    with pytest.raises(BadInput, match=r"network output map: got 'inf'; the numbers stop being finite in gate"):
        checked(Small(lambda x: x / 0.0 * x.sign().abs()))
    with pytest.raises(BadInput, match="example_input: got 'nan or inf'; give an input of finite numbers"):
        checked(Small(), IMAGE / 0)


def test_a_network_that_does_not_run_names_its_layer() -> None:
    """With the shape of the input and what torch said."""
    with pytest.raises(BadInput, match=r"network: got 'body.0'; make it run on an input of shape \(1, 3, 16, 16\)"):
        checked(Small(), torch.zeros(1, 3, 16, 16))


def test_a_network_made_for_another_size_says_so() -> None:
    """As those of timm and torchvision do that know theirs; another fault is told as it is."""
    network = Small(lambda x: x.view(1, 8, 24, 24))
    network.image_size = 24  # type: ignore[assignment]
    with pytest.raises(BadInput, match=r"example_input: got \(1, 1, 16, 16\); Small takes 24 × 24"):
        checked(network)
    network.image_size = 16  # type: ignore[assignment]
    with pytest.raises(BadInput, match="network: got 'gate'; make it run"):
        checked(network)


@pytest.mark.slow
def test_a_raw_detector_is_told_how_to_be_wrapped() -> None:
    """torchvision's return a dict for each picture; it takes seconds, not a training."""
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    began = time.perf_counter()
    with pytest.raises(BadInput, match=r"a list of 1 \(dict\) for one input, a list of 2 .*; wrap the network so that"):
        checked(network, torch.rand(1, 3, 64, 64))
    assert time.perf_counter() - began < 30


def _loaded(**tensors: torch.Tensor) -> nn.Module:
    network = Small()
    network.load_state_dict({**network.state_dict(), **tensors})
    return network


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: _loaded(**{"head.weight": torch.zeros(10, 8), "head.bias": torch.zeros(10)}),
            r"weights: got 'mine'; .* head.weight has shape \(10, 8\), not \(3, 8\) \(and 1 more\)",
        ),
        (lambda: _loaded(neck=torch.zeros(1)), "weights: got 'mine'; .*: they have beyond it neck"),
        (lambda: Small().load_state_dict({}), r"weights: got 'mine'; .*: they lack body.0.weight \(and 5 more\)"),
        (lambda: nn.Linear(2, 2).nothing, "network: got 'mine'; mend the task's .* AttributeError: .*nothing"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(make: Callable[[], nn.Module], words: str) -> None:
    """The first layer, both shapes, and how many more; what else fails in `network` is a line too."""
    task: Any = Task(make)
    with pytest.raises(BadInput, match=words) as told:
        made(task)
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with tiny_context(tmp_path_factory.mktemp("cache"), task="several_task:SeveralTask") as there:
        yield there


def test_a_task_evaluates_what_torch_returns(context: Any) -> None:
    """The dense network as exported, on the device: a dict with a tuple, for batches of any size."""
    shipped = context.answering(context.runner.load(context.dense), context.dense)
    judged = context.task.evaluate(shipped, "validation", 200)
    exact = context.task.evaluate(context.baseline.network, "validation", 200)
    assert abs(judged["top1"] - exact["top1"]) <= 0.01 and exact["top1"] > 0.4
    with pytest.raises(AttributeError, match="the deployed network has no 'head': evaluate has its outputs alone"):
        shipped.head  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", *(each for each in supported_precisions() if each != "f32")])
def test_a_trial_of_a_network_with_several_outputs(context: Any, tmp_path: Path, precision: str) -> None:
    """Trained, exported, quantised and evaluated at each precision: the task's `evaluate` sees what torch returns."""
    pytest.importorskip("nncf")
    there = context.at(precision)
    assert there.as_deployed(there.dense, there.baseline.network) is not there.baseline.network
    result = run_trial(Candidate({"conv2": 0.5}, precision, epochs=0.5), there, tmp_path, StageWatch())
    assert isinstance(result, Trial) and result.parity < 1e-4
    judged = SeveralTask().evaluate(there.as_deployed(result.exported, result.network), "validation")
    assert result.measurement.accuracy.val == judged["top1"]


@pytest.mark.slow
def test_the_wrapped_detector_of_the_page_can_ship() -> None:
    """docs/task.md shows how; its heads come out of it."""
    torchvision = pytest.importorskip("torchvision")
    code = re.search(r"```python\n(class Heads.*?)```", (ROOT / "docs" / "task.md").read_text(), re.DOTALL)
    assert code
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(code[1], space)
    network = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    found = checked(space["Heads"](network), torch.rand(1, 3, 320, 320))
    assert found == "bbox_regression [1, 3234, 4], cls_logits [1, 3234, 91]"


def test_nothing_is_trained_before_the_network_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sweep is planned; its trials do not look again."""

    def spoilt(self: SeveralTask) -> nn.Module:
        network = Heads()
        with torch.no_grad():
            network.head.bias.fill_(torch.inf)
        return network

    def obtain(*_: object) -> None:
        raise KeyError("trained")

    monkeypatch.setattr(SeveralTask, "network", spoilt)
    monkeypatch.setattr(context_module, "obtain", obtain)
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    request = from_config(CONFIG | {"task": "several_task:SeveralTask"})
    watch = StageWatch()
    with pytest.raises(BadInput, match="network output logits: got 'inf'; the numbers stop being finite in head"):
        context_module.prepare(request, None, watch.during, fresh=True)
    with pytest.raises(KeyError, match="trained"):
        context_module.prepare(request, None, watch.during)
