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


CASES: list[tuple[list[str], object, str]] = [
    (["goal"], "max", "sweep file: unknown key: got 'goal'"),
    (["program"], "train.py", "program: got 'train.py'; write `program: prunefleet`"),
    (["command"], ..., 'command: got None; write `command: ["${env}", prunefleet, trial]`'),
    (["command"], ["${env}", "python", "train.py"], "command: got ['${env}', 'python', 'train.py']; write"),
    (["method"], "bayesian", "method: got 'bayesian'; write one of bayes"),
    (["run_cap"], 0, "run_cap: got 0"),
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A sweep file that is not there is named in the message."""
    with pytest.raises(BadInput, match=r"nowhere\.yaml"):
        read_sweep_file(tmp_path / "nowhere.yaml")
