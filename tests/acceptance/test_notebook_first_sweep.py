"""The notebook that reads a sweep: run by a real kernel against a real hub, and kept in git without output."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from prunefleet.infra.hub.store.rows import SweepRow

from support.dashboard_hub import ACCURACY, KEPT, RATIO, Scene, served
from support.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "01_first_sweep.ipynb"
TELL = """import json
print(json.dumps({
    "winner": winner["run"], "columns": list(trials.columns), "trials": len(trials),
    "made_by": list(scored["made_by"]), "front": sorted(on_front["latency_ratio"]),
    "kept": channels.to_dict(), "accuracy": list(scored[metric]),
}))"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "hub")
    yield scene
    scene.store.close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which wandb and matplotlib know nothing of the person who runs the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SWEEP"))}
    own = ("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "MPLCONFIGDIR", "IPYTHONDIR")
    path = os.pathsep.join((str(NOTEBOOK.parents[1]), *filter(None, sys.path)))
    return {**kept, **dict.fromkeys(own, str(folder)), "PYTHONPATH": path, "WANDB_ERROR_REPORTING": "false", **more}


def execute(folder: Path, env: Mapping[str, str], *more: str) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in an empty folder; `more` are cells to run after its own."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    client = NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute(env=dict(env))


def sweep_env(scene: Scene, sweep: SweepRow, url: str) -> dict[str, str]:
    path = f"{sweep.entity}/{sweep.project}/{sweep.name}"
    return {"SWEEP": path, "WANDB_BASE_URL": url, "WANDB_API_KEY": scene.key}


def outputs(notebook: nbformat.NotebookNode) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_the_notebook_reads_a_sweep_and_draws_it(scene: Scene, tmp_path: Path) -> None:
    """Against a running hub it finds every trial in the vocabulary, front, controls and the best one's channels."""
    sweep, agent = scene.demo()
    scene.start(agent, {"ratio": {"stem": 0.5}}, {"kind": "explore"})
    with served(scene) as url:
        done = execute(tmp_path, environment(tmp_path, **sweep_env(scene, sweep, url)), TELL)
    found = json.loads(outputs(done)[-1]["text"])
    assert found["trials"] == len(KEPT) + 1
    assert {"outcome", "val_top1", "metric_drop", "latency_ratio", "latency_p50_ms", "kept.stem"} <= set(
        found["columns"]
    )
    assert found["accuracy"] == list(ACCURACY)
    assert found["made_by"] == ["dense", "uniform", "uniform", "search", "uniform", "search"]
    assert found["front"] == [0.20, 0.30, 0.38, 0.45, 1.0]
    assert found["kept"] == dict(zip(("stem", "stage1_conv", "stage2_conv"), KEPT[RATIO.index(0.38)], strict=True))
    pictures = [output for output in outputs(done) if "image/png" in output.get("data", {})]
    assert len(pictures) == 2


# The test above runs the same cells in `make test`.
@pytest.mark.slow
def test_nbmake_runs_it_as_it_stands(scene: Scene, tmp_path: Path) -> None:
    """`pytest --nbmake` runs the notebook as it stands in git, against a running hub."""
    sweep, _ = scene.demo()
    words = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--nbmake", str(NOTEBOOK)]
    with served(scene) as url:
        env = environment(tmp_path, **sweep_env(scene, sweep, url))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-2000:]


def test_a_sweep_without_a_scored_trial_is_told_in_one_line(scene: Scene, tmp_path: Path) -> None:
    """Before the first trial has ended there is nothing to draw, and the notebook says so."""
    sweep = scene.sweep()
    with (
        served(scene) as url,
        pytest.raises(CellExecutionError, match="without a scored trial; wait for the first one"),
    ):
        execute(tmp_path, environment(tmp_path, **sweep_env(scene, sweep, url)))


def test_without_a_sweep_the_notebook_says_what_to_set(tmp_path: Path) -> None:
    """A missing SWEEP ends in a line with the remedy."""
    with pytest.raises(CellExecutionError, match="SWEEP: got nothing; set it to entity/project/id"):
        execute(tmp_path, environment(tmp_path))


def test_the_notebook_is_kept_without_output() -> None:
    """Output and counters of a run stay out of git: they are one person's figures."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)
