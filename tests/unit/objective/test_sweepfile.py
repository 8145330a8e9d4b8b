"""The sweep file: what is read, and what is refused with which line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from prunefleet.objective.errors import BadInput
from prunefleet.objective.sweepfile import read_sweep_file, validate

from support.paths import ROOT


def good() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "sweep.yaml").read_text())


def test_the_shipped_sweep_is_valid() -> None:
    """The default sweep file passes its own rules."""
    assert read_sweep_file(ROOT / "sweep.yaml")["program"] == "prunefleet"


RECIPE, GOAL = (["parameters", name, "parameters"] for name in ("recipe", "objective"))
CASES: list[tuple[list[str], object, str]] = [
    (["goal"], "max", "sweep file: unknown key: got 'goal'"),
    (["program"], "train.py", "program: got 'train.py'; write `program: prunefleet`"),
    (["command"], ..., 'command: got None; write `command: ["${env}", prunefleet, trial]`'),
    (["command"], ["${env}", "python", "train.py"], "command: got ['${env}', 'python', 'train.py']; write"),
    (["method"], "bayesian", "method: got 'bayesian'; did you mean 'bayes'?"),
    (["method"], "gp", "method: got 'gp'; write one of bayes, random"),
    (["run_cap"], 0, "run_cap: got 0; write a whole number of at least 1"),
    (["run_cap"], "20", "run_cap: got '20'; write 20, without quotes"),
    (["parameters", "ratio"], {"parameters": {"stem": {"values": ["50%"]}}}, "ratio.stem: got '50%'; write 0.5"),
    (["parameters"], None, "parameters: got None"),
    (["parameters", "task"], ..., "parameters.task: got None; write `task:"),
    (["parameters", "ratios"], {}, "parameters: unknown key: got 'ratios'; did you mean 'ratio'?"),
    (["parameters", "recipe", "parameters", "epoch"], {"value": 1}, "did you mean 'epochs'?"),
    (["parameters", "objective", "parameters", "kind"], {"value": "best"}, "got 'best'"),
    (["parameters", "measure", "parameters", "precision"], {"values": ["f32", "f8"]}, "precision: got 'f8'"),
    (
        ["parameters", "measure", "parameters", "against"],
        {"value": "f32"},
        "got 'f32'; search measure.precision",
    ),
    (["parameters", "measure", "parameters", "against"], {"values": ["same", "f32"]}, "give one constant `value`"),
    (
        ["parameters", "measure", "parameters", "runner"],
        {"value": "tflite"},
        "measure.runner: got 'tflite'; write one of",
    ),
    (["parameters", "measure", "parameters", "runner"], {"values": ["torch_cpu"]}, "measure.runner: got {'values'"),
    (["parameters", "measure", "parameters", "threads"], {"value": 0}, "measure.threads: got 0"),
    (
        ["parameters", "measure", "parameters", "energy"],
        {"value": "nvml"},
        "energy: got 'nvml'; write rapl or tegrastats",
    ),
    (["parameters", "measure", "parameters", "energy"], {"values": ["rapl"]}, "give one constant `value`"),
    (["parameters", "ratio"], {"parameters": {"stem": {"values": [0.0, 1.0]}}}, "parameters.ratio.stem: got 1.0"),
    (["parameters", "ratio"], {"parameters": {"stem": {"min": -0.1, "max": 0.5}}}, "parameters.ratio.stem: got -0.1"),
    (["parameters", "options"], {"parameters": {"fold": {"values": [0, 1]}}}, "parameters.options.fold: got"),
    (["parameters", "options"], {"parameters": {"a.b": {"value": 1}}}, "parameters.options: got 'a.b'; give letters"),
    (["parameters", "options"], {"fold": {"value": 0}}, "parameters.options: got"),
    (["parameters", "ratio"], {"stem": {"value": 0.5}}, "parameters.ratio: got"),
    ([*RECIPE, "epochs"], 2, "recipe.epochs: got 2; write {value: 2}"),
    ([*RECIPE, "importance"], ["l2", "l1"], "recipe.importance: got ['l2', 'l1']; write {values: [l2, l1]}"),
    (["parameters", "task"], "a.b:C", "task: got 'a.b:C'; write {value: 'a.b:C'}"),
    ([*RECIPE, "epochs"], {"vaule": 2}, "recipe.epochs: got {'vaule': 2}; did you mean 'value'?"),
    ([*RECIPE, "lr"], {"min": 0.1}, "recipe.lr: got {'min': 0.1}; add max"),
    ([*RECIPE, "lr"], {}, "recipe.lr: got {}; write {value: …}, {values: […]} or {min: …, max: …}"),
    ([*RECIPE, "lr"], {"low": {"value": 1}}, "recipe.lr: got {'low': {'value': 1}}; nest them under `parameters:`"),
    ([*RECIPE, "lr"], {"min": "1e-5", "max": 0.1}, "recipe.lr.min: got '1e-5'; YAML reads 1e-5 as text; write 1.0e-5"),
    ([*RECIPE, "lr"], {"values": [0.1, "2e5"]}, "recipe.lr: got '2e5'; YAML reads 2e5 as text; write 2.0e+5"),
    ([*RECIPE, "lr"], {"values": 0.1}, "got {'values': 0.1}; write {values: […]} with a list, or {value: 0.1}"),
    ([*RECIPE, "seed"], {"value": "3"}, "recipe.seed: got '3'; write 3, without quotes"),
    ([*RECIPE, "distill"], {"value": "yes"}, "recipe.distill: got 'yes'; write true or false"),
    ([*RECIPE, "importance"], {"value": "l3"}, "recipe.importance: got 'l3'; choose one of l2, l1, fpgm"),
    ([*GOAL, "max_drop"], {"value": "2%"}, "objective.max_drop: got '2%'; write 0.02"),
    ([*GOAL, "max_drop"], {"value": "0,02"}, "objective.max_drop: got '0,02'; write 0.02, without quotes"),
    ([*GOAL, "max_drop"], {"value": "little"}, "objective.max_drop: got 'little'; give a finite number"),
    ([*GOAL, "kind"], {"value": "accurate"}, "objective.kind: got 'accurate'; did you mean 'most_accurate'?"),
    (["parameters", "upload"], {"value": "bundle"}, "did you mean 'bundles'?"),
]


@pytest.mark.parametrize(("path", "value", "line"), CASES, ids=[".".join(case[0]) for case in CASES])
def test_what_no_trial_could_follow_is_refused(path: list[str], value: object, line: str) -> None:
    """A wrong key or value is refused in one line with the field, the value and what would be right."""
    config = good()
    place = config
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(BadInput) as caught:
        validate(config)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, text: str) -> None:
    """Broken YAML, a list or an empty file end in one line, not in a traceback."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_sweep_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [{"distribution": "log_uniform", "min": -7, "max": -2}, {"min": 0.01, "max": 0.1}, {"value": None}],
)
def test_what_a_search_or_a_trial_can_follow_passes(spec: dict[str, Any]) -> None:
    """Logarithms are below 0, and a learning rate may be left to the task."""
    config = good()
    config["parameters"]["recipe"]["parameters"]["lr"] = spec
    validate(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A sweep file that is not there is named in the message."""
    with pytest.raises(BadInput, match=r"nowhere\.yaml"):
        read_sweep_file(tmp_path / "nowhere.yaml")
