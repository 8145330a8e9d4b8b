"""What a run's configuration and a sweep file ask for, and a task's name."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_task import TinyTask

from prunefleet.agent.measure.energy.sources import METERS
from prunefleet.agent.measure.runners.registry import MAKERS, runner_for
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import task_hash
from prunefleet.agent.trial.places import measured_on
from prunefleet.agent.trial.request import from_config, from_sweep
from prunefleet.objective.errors import BadInput
from prunefleet.objective.runners import RUNNERS

CONFIG: dict[str, Any] = {
    "task": "fashion_mnist",
    "objective": {"kind": "fastest", "metric": "top1", "max_drop": 0.02},
    "measure": {"device": "local", "precision": "f32"},
    "recipe": {"epochs": 2, "lr": 0.05, "seed": 3, "importance": "fpgm", "ranking": "filter"},
    "ratio": {"stem": 0.5, "head": 0},
}


def test_a_configuration_becomes_a_candidate() -> None:
    """Every block of the configuration reaches its place."""
    request = from_config(CONFIG)
    assert request.candidate.ratios == {"stem": 0.5, "head": 0.0}
    assert (request.candidate.epochs, request.candidate.seed, request.lr) == (2.0, 3, 0.05)
    assert (request.candidate.importance, request.candidate.ranking) == ("fpgm", "filter")
    assert request.goal.max_drop == 0.02 and request.task == "fashion_mnist"


def test_how_it_is_measured_reaches_the_bench() -> None:
    """Runner, threads and source of energy; OpenVINO on the processor, one thread and no energy unless told."""
    request = from_config(CONFIG | {"measure": {"runner": "torch_cpu", "threads": 2, "energy": "rapl"}})
    assert (request.runner, request.threads, request.energy) == ("torch_cpu", 2, "rapl")
    device, runner = measured_on(request)
    assert runner.settings() == {"runner": "torch_cpu", "streams": "1", "threads": "2"} and device.kind == "cpu"
    plain = measured_on(from_config(CONFIG))[1]
    assert plain.settings() == {"runner": "openvino_cpu", "streams": "1", "threads": "1"}


def test_every_runner_of_the_vocabulary_can_be_made_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the device or package that this host has not; energy has a meter for every source."""
    monkeypatch.setenv("PRUNEFLEET_MEASURE_COMMAND", "")
    for name in RUNNERS:
        try:
            runner = runner_for(name, "default")
        except BadInput as missing:
            assert "\n" not in str(missing)
        else:
            assert runner.settings()["runner"] == name
    assert {source for kind in RUNNERS.values() for source in kind.energy} == set(METERS)
    assert MAKERS.keys() == RUNNERS.keys()
    with pytest.raises(BadInput, match=r"measure\.runner: got 'tflite'"):
        runner_for("tflite")
    monkeypatch.setitem(sys.modules, "prunefleet.agent.measure.runners.onnx", None)
    with pytest.raises(BadInput, match=r"pip install 'prunefleet\[onnx\]'"):
        runner_for("onnxruntime_cpu")


def test_what_the_agent_added_is_no_part_of_the_request() -> None:
    """A run that is tried again has the agent's own keys, and W&B's: they are passed over."""
    again = {**CONFIG, "device": {"name": "local"}, "kept": {"stem": 16}, "host": "a", "versions": {}, "_wandb": {}}
    assert from_config(again) == from_config(CONFIG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratios": {"stem": 0.5}}, "unknown key ratios"),
        ({"ratio": {"stem": 1.0}}, "ratio.stem: got 1.0"),
        ({"ratio": {"stem": -0.1}}, "ratio.stem: got -0.1"),
        ({"ratio": {"stem": float("nan")}}, "ratio.stem"),
        ({"ratio": {"stem": "half"}}, "ratio.stem: got 'half'"),
        ({"recipe": {"epoch": 1}}, "recipe: unknown key epoch"),
        ({"recipe": {"lr": 0}}, "recipe.lr: got 0"),
        ({"recipe": {"importance": "hessian"}}, "recipe.importance: got 'hessian'; choose one of l2, l1"),
        ({"recipe": {"ranking": 1}}, "recipe.ranking: got 1; choose one of group, filter, channel"),
        ({"recipe": {"skip": "no"}}, "recipe.skip: got 'no'"),
        ({"recipe": {"timeout_minutes": 0}}, "recipe.timeout_minutes: got 0"),
        ({"upload": "weights"}, "parameters.upload: got {'value': 'weights'}; write one constant"),
        ({"measure": {"device": "my phone"}}, "measure.device: got 'my phone'; give a name of letters"),
        ({"measure": {"device": "phone"}, "upload": "metrics"}, "measure.device: got 'phone'; write local, or `upload"),
        (
            {"measure": {"device": "phone", "runner": "torch_cpu"}},
            "measure.runner: got 'torch_cpu'; write openvino_cpu",
        ),
        ({"measure": {"runner": "tflite"}}, "measure.runner: got 'tflite'; write one of openvino_cpu"),
        (
            {"measure": {"runner": "torch_cpu", "precision": "int8"}},
            "measure.precision: got 'int8'; write openvino_cpu",
        ),
        ({"measure": {"against": "bf16"}}, "measure.against: got 'bf16'; write one of same, f32"),
        ({"measure": {"precision": "f8"}}, "measure.precision: got 'f8'; write one of f32, bf16, f16, int8"),
        ({"measure": {"threads": 0}}, "measure.threads: got 0"),
        ({"measure": {"runner": "command", "energy": "rapl"}}, "nothing tells the energy of command"),
        ({"measure": {"runner": "torch_cuda", "energy": "rapl"}}, "measure.energy: got 'rapl'; write nvml"),
        ({"objective": {"kind": "best"}}, "objective.kind: got 'best'"),
        ({"objective": "fastest"}, "objective: got 'fastest'"),
        ({"baseline": 7}, "baseline: got 7"),
        ({"options": "small"}, "options: got 'small'"),
    ],
)
def test_a_wrong_configuration_is_one_line(change: dict[str, Any], words: str) -> None:
    """The line names the field, the value got and what would be right."""
    with pytest.raises(BadInput) as told:
        from_config(CONFIG | change)
    assert words in str(told.value) and "\n" not in str(told.value)


def test_a_sweep_file_asks_for_the_same() -> None:
    """Constants of a sweep file are its request; of several values the first counts."""
    parameters = yaml.safe_load(
        "{task: {value: fashion_mnist}, recipe: {parameters: {epochs: {values: [2, 3]}}},"
        "ratio: {parameters: {stem: {values: [0.5]}}}}"
    )
    request = from_sweep({"parameters": parameters})
    assert request.candidate.epochs == 2 and request.candidate.ratios == {}
    assert from_config({"task": "fashion_mnist", "recipe": {"epochs": 2}}) == request


def test_of_several_precisions_the_dense_candidate_takes_f32() -> None:
    """What all of them can be held against, wherever it stands in the list."""
    for values, taken in ((["int8", "f32"], "f32"), (["bf16", "int8"], "bf16")):
        measure = {"parameters": {"precision": {"values": values}}}
        request = from_sweep({"parameters": {"task": {"value": "fashion_mnist"}, "measure": measure}})
        assert request.candidate.precision == taken


def test_options_reach_the_task() -> None:
    """Options of a sweep file and of a run's configuration are the same, and are arguments of the task's class."""
    parameters = yaml.safe_load("{task: {value: fashion_mnist}, options: {parameters: {limit: {value: 30}}}}")
    request = from_sweep({"parameters": parameters})
    assert request == from_config({"task": "fashion_mnist", "options": {"limit": 30}})
    assert load_task(request.task, request.options).limit == 30  # type: ignore[attr-defined]


class Sized(TinyTask):
    def __init__(self, width: int, depth: int = 3) -> None:
        self.width = width


def test_options_are_part_of_the_tasks_hash() -> None:
    """Hosts whose tasks have the same code and other options do not take each other's dense network."""
    hashes = {task_hash(load_task(f"{__name__}:Sized", options)) for options in ({"width": 1}, {"width": 2})}
    assert len(hashes) == 2 and task_hash(load_task(f"{__name__}:Sized", {"width": 1})) in hashes
    assert task_hash(load_task("tiny_task:TinyTask")) == task_hash(TinyTask())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "options.width: got None; give this option"),
        ({"width": 1, "hight": 2}, f"options.hight: got 2; {__name__}:Sized takes width, depth"),
        ({"width": 1, "dep": 2}, "options.dep: got 2; did you mean 'depth'?"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, Any], words: str) -> None:
    """An option that is missing, or that the task does not take, is named with those that it takes."""
    with pytest.raises(BadInput) as told:
        load_task(f"{__name__}:Sized", options)
    assert words in str(told.value)


class Rooted(TinyTask):
    def __init__(self, root: str, size: int = 1, other: str = "") -> None:
        self.root, self.size, self.other = root, size, other


@pytest.mark.parametrize(
    ("root", "here"),
    [
        ("/data/lab/parts", "/mnt/nas/parts"),
        ("/data/lab", "/mnt/nas"),
        ("/data/lab/big/x", "/big/x"),
        ("/data/labels", "/data/labels"),
        ("data/lab", "data/lab"),
    ],
)
def test_full_paths_are_mapped_on_a_host(monkeypatch: pytest.MonkeyPatch, root: str, here: str) -> None:
    """By whole folders, the longest that fits; the task's hash is that of what the sweep file says."""
    options = {"root": root, "size": 2, "other": "x"}
    before = task_hash(load_task(f"{__name__}:Rooted", options))
    monkeypatch.setenv("PRUNEFLEET_DATA_MAP", "/data/lab=/mnt/nas, /data/lab/big=/big")
    task: Any = load_task(f"{__name__}:Rooted", options)
    assert (task.root, task.size, task.other) == (here, 2, "x") and task_hash(task) == before


@pytest.mark.parametrize("given", ["/data/lab", "data=/mnt", "/data="])
def test_a_map_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """The variable, what was got, and its form."""
    monkeypatch.setenv("PRUNEFLEET_DATA_MAP", f"/a=/b,{given}")
    with pytest.raises(BadInput) as told:
        load_task(f"{__name__}:Rooted", {"root": "/data"})
    assert str(told.value).startswith(f"PRUNEFLEET_DATA_MAP: got '{given}'; write FROM=TO")


def test_a_task_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module in the working directory is found as one on the path is."""
    assert isinstance(load_task("tiny_task:TinyTask"), TinyTask)
    (tmp_path / "my_own_task.py").write_text("from tiny_task import TinyTask as Mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_task("my_own_task:Mine").name == "tiny"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", "name one of fashion_mnist"),
        ("imagefolder", "did you mean 'image_folder'?"),
        ("ImageFolder:", "name one of fashion_mnist"),
        (None, "name one of fashion_mnist"),
        ("no_such_module:Task", "no module 'no_such_module'"),
        ("tiny_task:Nothing", "has no attribute 'Nothing'"),
        ("tiny_task:SIZES", "not callable"),
        ("pathlib:PurePath", "give PurePath the member network"),
    ],
)
def test_a_wrong_task_is_one_line(name: object, words: str) -> None:
    """The line says what is missing."""
    with pytest.raises(BadInput, match="task") as told:
        load_task(name)
    assert words in str(told.value)
