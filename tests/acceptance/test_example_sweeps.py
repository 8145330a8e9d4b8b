"""Whole sweeps of tasks that are no image classification, and of the second sweep that comes with the project."""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunefleet.objective.sweepfile import read_sweep_file

from support import pictures as support_pictures
from support.hub import HubProcess
from support.paths import ROOT

EXAMPLES = ROOT / "docs" / "examples"
UNET = ("0_inner_1_inner_1_0", "0_inner_1_inner_2")
"""The deepest convolution, and the transposed one above it."""
BLOCK = ("encoder_layers_encoder_layer_0_self_attention_query", "encoder_layers_encoder_layer_0_mlp_0")
"""Heads of the first block of a transformer, and the inside of its perceptron."""
COMMAND = ["${env}", sys.executable, "-m", "prunefleet.agent", "trial"]


class Lab:
    """A hub, and agents that find the examples."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.env = {
            "PYTHONPATH": f"{EXAMPLES}:{hub.folder}:{os.environ.get('PYTHONPATH', '')}",
            "PRUNEFLEET_CACHE": str(hub.folder / "pruned"),
            "OMP_NUM_THREADS": "1",
            "WANDB_PROJECT": "lab",
        }

    def sweep(self, example: str, cap: int, change: dict[str, Any] | None = None, agents: int = 2) -> str:
        """Run an example's sweep to its end by real agents, without a profile; its path."""
        config = read_sweep_file(EXAMPLES / f"{example}.yaml") | {"run_cap": cap, "command": COMMAND}
        config["parameters"] |= change or {}
        path = self.hub.folder / f"{example}.yaml"
        path.write_text(yaml.safe_dump(config))
        told = self.hub.run(sys.executable, "-m", "wandb", "sweep", "--project", "lab", str(path))
        sweep = "local/lab/" + told.split("wandb agent local/lab/")[1].split()[0]
        self._done(*[(sys.executable, "-m", "wandb", "agent", sweep)] * agents)
        return sweep

    def answer(self, sweep: str) -> dict[str, Any]:
        """The answer of a sweep that has ended."""
        self._done((sys.executable, "-m", "prunefleet.agent", "answer", sweep, "--out", "answer.json"))
        found: dict[str, Any] = json.loads((self.hub.folder / "answer.json").read_text())
        return found

    def _done(self, *commands: tuple[str, ...]) -> None:
        """Run commands side by side, and wait until all have ended well."""
        started = [self.hub.popen(*argv, **self.env) for argv in commands]
        said = [process.communicate(timeout=1200)[0] for process in started]
        assert all(process.returncode == 0 for process in started), said

    def runs(self, sweep: str) -> list[dict[str, Any]]:
        """Configurations and summaries of a sweep's runs."""
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) { runs { edges { node {
            config summaryMetrics } } } } } }"""
        found = self.hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["runs"]["edges"]
        return [{key: json.loads(edge["node"][key] or "{}") for key in ("config", "summaryMetrics")} for edge in found]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with HubProcess(tmp_path / "lab") as hub:
        yield Lab(hub)


def _ratio(*groups: str) -> dict[str, Any]:
    return {"ratio": {"parameters": {group: {"values": [0.0, 0.5]} for group in groups}}}


def _short(epochs: float) -> dict[str, Any]:
    return {"recipe": {"parameters": {"epochs": {"value": epochs}}}}


def _judged(found: dict[str, Any], metric: str) -> None:
    """The answer is in the task's own metric, with intervals of it and of what the winner lost."""
    winner, controls = found["winner"], found["controls"]
    assert winner["metric"] == metric and 0 < winner["latency_ratio"] < 1.2
    for judged in (winner, controls["dense"]):
        assert judged["test_lo"] <= judged["test"] <= judged["test_hi"] and judged["test_lo"] < judged["test_hi"]
    assert winner["test_drop_lo"] <= winner["test_drop"] <= winner["test_drop_hi"]
    assert set(controls["uniform"]) >= {"equal_latency", "equal_quality", "test_lo"}


# `make test` trains, prunes and evaluates the same U-Net in tests/contract/test_agent_task.py.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_segmentation_is_swept(lab: Lab) -> None:
    """A U-Net with the user's loss, loop and mean IoU: its concatenations and transposed convolutions are pruned."""
    ratio = {"ratio": {"parameters": {group: {"values": [0.25, 0.5]} for group in UNET}}}
    runs = lab.runs(lab.sweep("segmentation", 2, ratio | _short(2)))
    told = [run["summaryMetrics"] for run in runs]
    assert [each["outcome"] for each in told] == ["scored"] * 2
    assert all(min(each["val_miou"], each["holdout_miou"]) > 0.6 and each["latency_ratio"] < 1.2 for each in told)
    kept = [run["config"]["kept"]["value"] for run in runs]
    assert all(each[UNET[0]] in (32, 48) and each[UNET[1]] in (16, 24, 32) for each in kept)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("example", "metric", "groups"),
    [("segmentation", "miou", UNET), ("defects", "recall", ("0_0", "1_0")), ("transformer", "top1", BLOCK)],
)
def test_a_task_of_another_kind_has_an_answer(lab: Lab, example: str, metric: str, groups: tuple[str, ...]) -> None:
    """A sweep whose metric is no mean over examples ends in a winner and controls, with intervals in that metric."""
    found = lab.answer(lab.sweep(example, 4, _ratio(*groups) | _short(2)))
    _judged(found, metric)
    assert set(groups) <= set(found["winner"]["kept"]) and found["controls"]["dense"]["test"] > 0.6


# `make test` trains, surveys and evaluates the same detector in tests/contract/test_agent_task.py.
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_is_swept_at_int8(lab: Lab) -> None:
    """A detector whose answers are a dict of lists, judged by mean average precision, has an answer with intervals."""
    options = {"train": 320, "other": 120, "epochs": 8}
    change = {
        "options": {"parameters": {name: {"value": value} for name, value in options.items()}},
        "measure": {"parameters": {"precision": {"value": "int8"}}},
    }
    found = lab.answer(lab.sweep("detection", 2, change | _ratio("to8_3_0", "mix8_mix_0") | _short(1)))
    _judged(found, "map50")
    assert found["winner"]["precision"] == "int8" and found["controls"]["dense"]["test"] > 0.2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_folders_of_pictures_are_swept(lab: Lab) -> None:
    """A sweep file names a folder of pictures and a network, and no code of the user's."""
    root = support_pictures.folders(lab.hub.folder / "parts", 40)
    options = {"root": str(root), "architecture": "resnet9", "size": 32, "epochs": 2, "positive_class": "crack"}
    change = {
        "task": {"value": "image_folder"},
        "options": {"parameters": {name: {"value": value} for name, value in options.items()}},
        "objective": {"parameters": {"kind": {"value": "pareto"}, "metric": {"value": "balanced_accuracy"}}},
    }
    found = lab.answer(lab.sweep("defects", 2, change | _ratio("stem") | _short(1), agents=1))
    assert found["winner"]["metric"] == "balanced_accuracy" and found["winner"]["kept"]["stem"] in (16, 32)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.elpv
def test_solar_cells_are_swept_in_miniature(lab: Lab) -> None:
    """The second sweep that comes with the project, on a few cells: pretrained, folded, judged by balanced accuracy.

    Where elpv-dataset is not installed, the cells are made up.
    """
    if importlib.util.find_spec("elpv_dataset") is None:
        support_pictures.elpv(lab.hub.folder)
    config = read_sweep_file(EXAMPLES / "elpv.yaml")
    options = dict(config["parameters"]["options"]["parameters"]) | {"limit": {"value": 32}, "epochs": {"value": 1}}
    change = {"options": {"parameters": options}} | _ratio("blocks_2_0_conv_pw") | _short(1)
    found = lab.answer(lab.sweep("elpv", 2, change, agents=1))
    assert found["winner"]["metric"] == "balanced_accuracy"
    assert found["winner"]["test_lo"] <= found["winner"]["test"] <= found["winner"]["test_hi"]


@pytest.mark.parametrize("name", ["segmentation", "defects", "transformer"])
def test_an_example_is_short(name: str) -> None:
    """A user's task is at most 40 lines, network, loss and loop included, and its sweep file is valid."""
    assert len(re.findall(r"\S.*\n", (EXAMPLES / f"{name}.py").read_text())) <= 40
    assert read_sweep_file(EXAMPLES / f"{name}.yaml")["parameters"]["task"]["value"].startswith(f"{name}:")


def test_the_second_sweep_is_valid() -> None:
    """The sweep file of the solar cells passes the rules, and its commands in the docs name a file that exists."""
    config = read_sweep_file(EXAMPLES / "elpv.yaml")
    assert config["parameters"]["task"] == {"value": "elpv"}
    assert "docs/examples/elpv.yaml" in (EXAMPLES.parent / "task.md").read_text()
