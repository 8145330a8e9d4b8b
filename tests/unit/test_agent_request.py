"""What a run's configuration and a sweep file ask for, and a task's name."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_tiny_task import TinyTask

from agent.request import from_config, from_sweep
from agent.tasks.registry import load_task
from objective.errors import BadInput
from objective.space import nest

CONFIG: dict[str, Any] = {
    "task": "fashion_mnist",
    "objective": {"kind": "fastest", "metric": "top1", "max_drop": 0.02},
    "measure": {"device": "local", "precision": "f32"},
    "recipe": {"epochs": 2, "lr": 0.05, "seed": 3},
    "ratio": {"stem": 0.5, "head": 0},
}


def test_a_configuration_becomes_a_candidate() -> None:
    """Every block of the configuration reaches its place."""
    request = from_config(CONFIG)
    assert request.candidate.ratios == {"stem": 0.5, "head": 0.0}
    assert (request.candidate.epochs, request.candidate.seed, request.lr) == (2.0, 3, 0.05)
    assert request.goal.max_drop == 0.02 and request.task == "fashion_mnist"


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
        ({"recipe": {"skip": "no"}}, "recipe.skip: got 'no'"),
        ({"recipe": {"timeout_minutes": 0}}, "recipe.timeout_minutes: got 0"),
        ({"upload": "weights"}, "parameters.upload: got {'value': 'weights'}; write one constant"),
        ({"measure": {"device": "phone"}}, "measure.device: got 'phone'"),
        ({"objective": {"kind": "best"}}, "objective.kind: got 'best'"),
        ({"objective": "fastest"}, "objective: got 'fastest'"),
        ({"baseline": 7}, "baseline: got 7"),
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
    assert from_config(nest({"task": "fashion_mnist", "recipe.epochs": 2})) == request


def test_a_task_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module in the working directory is found as one on the path is."""
    assert isinstance(load_task("support_tiny_task:TinyTask"), TinyTask)
    (tmp_path / "my_own_task.py").write_text("from support_tiny_task import TinyTask as Mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_task("my_own_task:Mine").name == "tiny"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", "name one of fashion_mnist"),
        (None, "name one of fashion_mnist"),
        ("no_such_module:Task", "no module 'no_such_module'"),
        ("support_tiny_task:Nothing", "has no attribute 'Nothing'"),
        ("support_tiny_task:SIZES", "not callable"),
        ("pathlib:PurePath", "give PurePath the member network"),
    ],
)
def test_a_wrong_task_is_one_line(name: object, words: str) -> None:
    """The line says what is missing."""
    with pytest.raises(BadInput, match="task") as told:
        load_task(name)
    assert words in str(told.value)
