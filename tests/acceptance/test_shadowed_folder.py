"""A folder of the user's with files named like this package's rooms: a sweep runs there, and none of them does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.hosts import build_wheel, environment_from
from support.paths import TESTS
from support.wait import wait_for

SWEEP = """
name: shadowed
program: prunefleet
command: ["${env}", prunefleet, trial]
method: random
metric: {name: score, goal: maximize}
run_cap: 3
parameters:
  task: {value: "agent.mine:Mine"}
  upload: {value: all}
  objective: {parameters: {kind: {value: fastest}, metric: {value: top1}, max_drop: {value: 0.5}}}
  measure: {parameters: {device: {value: local}, precision: {value: f32}}}
  recipe: {parameters: {epochs: {value: 0.5}}}
"""
# Whoever runs one of these leaves a mark and dies of it.
MARK = "open({mark!r}, 'a').write(__file__ + '\\n')\nraise SystemExit('a file of the user was run as ours')\n"
SHADOWS = (
    *("agent.py", "objective.py", "infra.py", "wandb.py", "torch.py", "numpy.py", "yaml.py", "json.py"),
    *("objective/__init__.py", "objective/errors.py", "infra/__init__.py", "infra/cli.py", "infra/server.py"),
    *("agent/__main__.py", "agent/measure/__init__.py", "agent/tasks/__init__.py"),
)


class Folder:
    """A user's folder, with a home and a cache of its own, and the command of a fresh environment."""

    def __init__(self, place: Path, environment: Path, *, task: bool) -> None:
        self.here, self.home, self.bin = place / "here", place / "home", environment / "bin"
        self.mark = place / "shadowed"
        self.home.mkdir(parents=True)
        for name in SHADOWS:
            file = self.here / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(MARK.format(mark=str(self.mark)))
        if task:
            (self.here / "agent" / "__init__.py").write_text("")
            text = (TESTS / "tiny_task.py").read_text()
            (self.here / "agent" / "mine.py").write_text(text + "\n\nclass Mine(TinyTask):\n    name = 'mine'\n")
            (self.here / "sweep.yaml").write_text(SWEEP)

    def start(self, log: str, *words: str, **more: str) -> "subprocess.Popen[bytes]":
        """`prunefleet WORDS` in the folder, with nothing on its path but the environment's own packages."""
        own = {"HOME": str(self.home), "PATH": f"{self.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        own |= {"PRUNEFLEET_CACHE": str(self.home / "cache"), "WANDB_ERROR_REPORTING": "false", "TINY_WIDTH": "32"}
        with (self.home / log).open("wb") as out:
            argv = [str(self.bin / "prunefleet"), *words]
            return subprocess.Popen(
                argv, cwd=self.here, env={**own, **more}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def said(self, log: str) -> str:
        """What was written to one of its logs."""
        return (self.home / log).read_text(errors="replace")

    def end(self) -> None:
        """Kill whatever still runs with this home."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"HOME={self.home}".encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Folder, Folder]]:
    """The user's folder and, on what stands for another host, one without the task."""
    environment = environment_from(build_wheel(tmp_path / "wheel"), tmp_path / "environment")
    made = Folder(tmp_path / "one", environment, task=True), Folder(tmp_path / "two", environment, task=False)
    yield made
    for folder in made:
        folder.end()


def test_check_runs_none_of_them(tmp_path: Path) -> None:
    """The installed command's miniature trial of a task in the user's own `agent/mine.py` loads nothing else there."""
    folder = Folder(tmp_path / "one", Path(sys.prefix), task=True)
    try:
        checked = folder.start("check.log", "check", "sweep.yaml")
        assert checked.wait(300) == 0, folder.said("check.log")
        assert not folder.mark.exists(), folder.mark.read_text()
    finally:
        folder.end()


# `make test` has the test above; a wheel that pip installs, with its names, is in tests/unit/hub/test_wheel.py.
@pytest.mark.slow
def test_files_named_like_ours_are_never_run(folders: tuple[Folder, Folder]) -> None:
    """`check`, `up` with its hub, and a host that joined run a sweep of a task in the user's own `agent/mine.py`."""
    mine, other = folders
    site = next((mine.bin.parent / "lib").glob("python*/site-packages"))
    assert {path.name for path in site.glob("[!p_]*")} & {"agent", "objective", "infra", "door"} == set()
    checked = mine.start("check.log", "check", "sweep.yaml")
    assert checked.wait(300) == 0, mine.said("check.log")
    up = mine.start("up.log", "up", "sweep.yaml", "--agents", "1", "--port", "0", "--until-done", "--mixed", "4")
    state = mine.here / ".prunefleet" / "up.json"
    told = wait_for(lambda: (state.exists() and json.loads(state.read_text())) or up.poll() is not None, 400)
    ready = wait_for(lambda: up.poll() is not None or json.loads(state.read_text()).get("sweep"), 400)
    assert up.poll() is None and ready, mine.said("up.log")[-3000:]
    told = json.loads(state.read_text())
    joined = other.start("join.log", "join", told["url"], told["sweep"], WANDB_API_KEY=told["api_key"])
    assert up.wait(500) == 0, mine.said("up.log")[-3000:]
    answer = json.loads((mine.here / "demo.json").read_text())
    assert sum(answer["outcomes"].values()) == 3 and answer["outcomes"].get("scored"), answer["outcomes"]
    wait_for(lambda: "Keeping 1 agent" in other.said("join.log"), 60)
    assert joined.poll() is None, other.said("join.log")
    os.kill(joined.pid, signal.SIGTERM)
    assert joined.wait(60) == 0, other.said("join.log")
    for folder in folders:
        assert not folder.mark.exists(), folder.mark.read_text()
