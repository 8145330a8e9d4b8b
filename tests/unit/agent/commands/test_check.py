"""`prunefleet check`: one line per part of a sweep that is well, and one line for the first that is not."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from prunefleet.agent.__main__ import main
from prunefleet.agent.commands import check as module
from prunefleet.agent.tasks.code.source import code_of
from prunefleet.objective.errors import BadInput

from support.login import signed_out

SWEEP: dict[str, Any] = {
    "program": "prunefleet",
    "command": ["${env}", "prunefleet", "trial"],
    "method": "bayes",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {
        "task": {"value": "tiny_task:TinyTask"},
        "objective": {"parameters": {"kind": {"value": "fastest"}, "max_drop": {"value": 0.05}}},
        "ratio": {"parameters": {"conv1": {"values": [0.0, 0.5]}}},
    },
}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a sweep file, changed in places, and runs `check` on it; returns the exit code."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "MEASURED_S", 0.2)
    signed_out(monkeypatch, tmp_path)

    def check(**changes: Any) -> int:
        path = tmp_path / "sweep.yaml"
        parameters = SWEEP["parameters"] | changes.pop("parameters", {})
        path.write_text(yaml.safe_dump(SWEEP | changes | {"parameters": parameters}))
        return main(["check", str(path)])

    return check


def test_a_device_elsewhere_is_looked_for(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must be known to the project; the miniature trial measures on this host in its place."""
    asked = []

    def queue_of(project: str, device: str) -> Any:
        asked.append((project, device))
        raise BadInput("measure.device", device, "write local: there is no other yet")

    monkeypatch.setattr(module, "queue_of", queue_of)
    monkeypatch.setattr(module, "require_server", lambda: "me")
    monkeypatch.setenv("WANDB_PROJECT", "lab")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert sweep(parameters={"measure": {"parameters": {"device": {"value": "board"}}}}) == 2
    assert asked == [("me/lab", "board")] and "measure.device: got 'board'" in capsys.readouterr().err
    monkeypatch.setattr(module, "queue_of", lambda project, device: Namespace(path="me/lab/abc"))
    there = {"device": {"value": "board"}, "runner": {"value": "openvino_npu"}}
    checks = module.Checks(module.StageWatch())
    request = module.from_sweep(SWEEP | {"parameters": SWEEP["parameters"] | {"measure": {"parameters": there}}})
    here = module._here(checks, request)
    assert (here.devices, here.runner) == (("local",), "openvino_cpu")
    assert "board takes measurements from me/lab/abc" in capsys.readouterr().out
    several = {"device": {"value": ["board", "local", "pi"]}, "threads": {"value": 2}}
    request = module.from_sweep(SWEEP | {"parameters": SWEEP["parameters"] | {"measure": {"parameters": several}}})
    assert module._here(checks, request).devices == ("local",)
    assert "pi takes measurements from me/lab/abc, of all devices the slowest counts" in capsys.readouterr().out


def test_a_good_sweep_passes_every_part(sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part has its line, a miniature trial included; nothing is left in the cache but what is of use."""
    assert sweep() == 0
    lines = capsys.readouterr().out.splitlines()
    parts = [line.split()[1].rstrip(":") for line in lines[:-1]]
    assert parts == ["file", "upload", "code", "task", "data", "device", "groups", "server", "trial"]
    assert lines[-1].endswith("all is well")
    assert (
        "--  server: WANDB_BASE_URL, WANDB_API_KEY and `wandb login` name none; `prunefleet up` starts its own" in lines
    )
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {"bf16"}


@pytest.mark.parametrize(
    ("upload", "code", "words"),
    [
        ("all", None, "tiny_task.py (2.1 KiB), uploaded with the sweep; every host runs it"),
        ("bundles", None, "not uploaded; copy it to every other host, or set `upload: {value: all}`"),
        ("all", "own", "here is the sweep's"),
        ("all", f"code-{'a' * 64}:v0", "would be fetched and run here, what is checked is this host's own"),
    ],
)
def test_what_becomes_of_the_code_is_told(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    upload: str,
    code: str | None,
    words: str,
) -> None:
    """Before a plan what a sweep would bring, after it what this host would run; nothing is fetched."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    own = code_of("tiny_task")
    assert own is not None
    named = {"code": {"value": f"code-{own.sha256}:v0" if code == "own" else code}} if code else {}
    parameters = SWEEP["parameters"] | {"upload": {"value": upload}} | named
    request = module.from_sweep(SWEEP | {"parameters": parameters})
    assert module._code(module.Checks(module.StageWatch()), request) is None
    told = capsys.readouterr().out
    assert told.startswith("ok  code: ") and re.sub(r"\d+\.\d KiB", "2.1 KiB", words) in re.sub(
        r"\d+\.\d KiB", "2.1 KiB", told
    )


OWN = """
import torch
from several_task import SeveralTask
from torch import nn


class Mine(SeveralTask):
    def network(self):
        network = super().network()
        {change}
        return network


class Chosen(nn.Module):
    def forward(self, x):
        return 2 * x if x.mean() > 0 else x


class PerPicture(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return [{{"logits": self.network(image[None])["logits"]}} for image in images]
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network = PerPicture(network)", "network output: got 'a list of 1 (dict) for one input, a list of 2 (dict)"),
        ("network.conv2 = nn.Sequential(network.conv2, Chosen())", "network.conv2.1: got '"),
        ("network.conv2.bias.data.fill_(torch.nan)", "network output maps.0: got 'nan'; the numbers stop being finite"),
        ("network.load_state_dict({'conv1.weight': torch.zeros(3, 3)})", "conv1.weight has shape (3, 3), not (64, 1, "),
    ],
)
def test_a_network_that_cannot_ship_is_told_before_anything_is_trained(
    sweep: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    words: str,
) -> None:
    """In one line, with exit code 2 and nothing left in the cache; neither groups nor a trial have begun."""
    name = f"mine{abs(hash(change))}"
    (tmp_path / f"{name}.py").write_text(OWN.format(change=change))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sweep(parameters={"task": {"value": f"{name}:Mine"}}) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and "ok  groups" not in told.out
    assert not (tmp_path / "cache").exists()


def test_a_fault_in_the_task_is_one_line(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the stage and the place in the task's code."""
    (tmp_path / "faulty.py").write_text(
        "from several_task import SeveralTask\n\n\nclass Mine(SeveralTask):\n"
        "    def evaluate(self, network, split, limit=None):\n        return {'top1': [][0]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sweep(parameters={"task": {"value": "faulty:Mine"}}) == 1
    told = capsys.readouterr().err
    assert told == "prunefleet: evaluate: unknown: IndexError: list index out of range (faulty.py, line 6)\n"


ADDED = "for which `prunefleet plan` and `up` add measure.against"


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ({"precision": {"value": "int8"}}, ""),
        ({"precision": {"values": ["int8", "f32"]}}, f"at f32, {ADDED}"),
        ({"precision": {"values": ["int8", "f32"]}, "against": {"value": "f32"}}, "at f32"),
        ({"precision": {"values": ["int8", "f32"]}, "against": {"value": "same"}}, "at its own precision"),
        ({"precision": {"values": ["int8", "bf16"]}}, "at its own precision"),
    ],
)
def test_what_several_precisions_are_held_against_is_told(measure: dict[str, Any], words: str) -> None:
    """One precision needs no word; of several it is said which dense network the ratios are of."""
    told = module._compared(measure)
    names = ", ".join(measure["precision"].get("values", []))
    assert told == ([f"each of {names} against the dense network {words}"] if words else [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": "x"}, "unknown key: got 'goal'"),
        ({"parameters": {"ration": {}}}, "unknown key: got 'ration'; did you mean 'ratio'?"),
        ({"parameters": {"ratio": {"parameters": {"conv1": {"value": 1.0}}}}}, "ratio.conv1: got 1.0"),
        ({"parameters": {"ratio": {"parameters": {"conv7": {"value": 0.5}}}}}, "ratio.conv7"),
        ({"parameters": {"task": {"value": "nowhere:Task"}}}, "no module 'nowhere'"),
        ({"parameters": {"objective": {"parameters": {"metric": {"value": "iou"}}}}}, "objective.metric: got 'iou'"),
        ({"parameters": {"measure": {"parameters": {"device": {"value": "a b"}}}}}, "measure.device: got 'a b'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    sweep: Any, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    """The first fault ends the check with its field, its value and its remedy."""
    assert sweep(**changes) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"name": "score", "goal": "maximize"}, None),
        ({"name": "val_top1"}, "would minimize val_top1"),
        ({"name": "score"}, "would minimize score"),
        ({"name": "val_top1", "goal": "maximize"}, "would maximize val_top1"),
        (None, "has nothing to go by"),
    ],
)
def test_a_metric_that_is_not_the_score_is_told(metric: object, words: str | None) -> None:
    """The hub searches by the objective, W&B's own engine by what stands there, downwards unless it says otherwise."""
    told = module._searched_by({"method": "bayes", "metric": metric})
    assert told == (
        words and "--  metric: write `metric: {name: score, goal: maximize}`; without it W&B's own search " + words
    )
    assert module._searched_by({"method": "grid", "metric": metric}) is None


SCHEDULER = {"engine": "optuna", "source": "search.py", "optimizer": "study", "search_space": "candidate"}


@pytest.mark.parametrize("old", ["from infra.scheduler import candidate, study", "import infra.scheduler as search"])
def test_a_search_of_version_0_1_is_found(
    sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str
) -> None:
    """The scheduler's file beside the sweep file must import from `prunefleet`; the line to write is told."""
    (tmp_path / "search.py").write_text(f'"""Ours."""\n\n{old}  # the search\n')
    assert sweep(method="custom", scheduler=SCHEDULER) == 2
    assert capsys.readouterr().err == (
        "prunefleet: scheduler.source: got 'search.py'; write `from prunefleet import candidate, study` in it: "
        f"version 0.1 said `{old}`\n"
    )


@pytest.mark.parametrize(
    "scheduler",
    [None, "search.py", {"engine": "optuna"}, {"source": 3}, {"source": "missing.py"}, {"source": "."}, SCHEDULER],
)
def test_another_scheduler_is_left_alone(tmp_path: Path, scheduler: object) -> None:
    """A file that imports from `prunefleet` is well, and so is a block that names no file beside the sweep file."""
    text = "from prunefleet import candidate, study\nimport infrared\n# from infra.scheduler import candidate\n"
    (tmp_path / "search.py").write_text(text)
    module._check_scheduler(tmp_path, scheduler)


def test_a_server_that_does_not_answer_is_found(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a server named, its address and key are tried."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert sweep() == 2
    assert "WANDB_BASE_URL: got 'http://127.0.0.1:1'" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file is told by its path."""
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


class _Middle:
    """A task whose metric is computed anew on resamples."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def resampled(self, network: object, split: str, metric: str) -> Any:
        return 5, self.function


def test_an_interval_is_tried_on_some_resamples(capsys: pytest.CaptureFixture[str]) -> None:
    """What the answer computes a thousand times is computed a few times, and it is said how long all would take."""
    asked: list[object] = []
    checks, network = module.Checks(module.StageWatch()), torch.nn.Identity()
    task: Any = _Middle(lambda rows: float(asked.append(rows) or rows.double().median()))
    module._interval(checks, task, network, "middle")
    assert len(asked) == module.RESAMPLED
    assert re.search(r"interval: middle \d.* untrained, 5 examples, \d+\.\d s for the 1000", capsys.readouterr().out)
    task = _Middle(lambda rows: float("nan"))
    with pytest.raises(BadInput, match="the function of `resampled`: got nan; let it be finite on any examples"):
        module._interval(checks, task, network, "middle")
