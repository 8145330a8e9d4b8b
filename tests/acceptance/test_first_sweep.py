"""From nothing to a sweep: what `prunefleet init` writes is accepted by `check` as it is, and runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.pictures import folders

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `prunefleet` in an empty folder with pictures in `parts`, without a terminal; returns what it said."""
    folders(tmp_path / "parts", 20)
    hidden = {"WANDB_BASE_URL", "WANDB_API_KEY", "NETRC", "PRUNEFLEET_DATA"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"HOME": str(tmp_path / "home"), "PRUNEFLEET_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def prunefleet(*words: str) -> str:
        argv = [sys.executable, "-m", "prunefleet.infra.cli", *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return prunefleet


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (
            ["--network", "resnet9", "--data", "parts", "--metric", "f1", "--positive-class", "good"],
            "metrics recall, precision, f1, top1",
        ),
        (["--network", "my_task:MyTask"], "task: mytask, metrics top1"),
        (["--network", "mine.task:MyTask", "--metric", "miou", "--data", "parts"], "task: mytask, metrics miou"),
    ],
    ids=["pictures in folders", "images of one's own", "inputs and targets of one's own"],
)
def test_what_init_writes_is_accepted_by_check(run: Run, flags: list[str], found: str) -> None:
    """Every part is well, the miniature trial too."""
    assert run("init", *flags).splitlines()[-1] == "Next: prunefleet check sweep.yaml"
    told = run("check", "sweep.yaml")
    assert found in told and told.splitlines()[-1] == "sweep.yaml: all is well"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_init_writes_runs(run: Run, tmp_path: Path) -> None:
    """A whole sweep of the skeleton, shortened in its number of trials alone, ends in an answer."""
    run("init", "--network", "my_task:MyTask", "--max-drop", "0.3")
    text = (tmp_path / "sweep.yaml").read_text()
    assert "run_cap: 20 " in text
    (tmp_path / "sweep.yaml").write_text(text.replace("run_cap: 20 ", "run_cap: 2 "))
    words = ("--agents", "1", "--port", "0", "--mixed", "2", "--until-done", "--answer", "answer.json")
    told = run("up", "sweep.yaml", *words)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert sum(answer["outcomes"].values()) == 2 and answer["winner"]["metric"] == "top1"
    pages = [line for line in told.splitlines() if line.startswith(("Page: ", "Sign in within ten minutes: "))]
    assert len(pages) == 2 and "/login?ticket=" in pages[1]
