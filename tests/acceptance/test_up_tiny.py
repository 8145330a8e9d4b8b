"""`prunefleet up` with a tiny network and task: the whole line, its faults, and a second machine."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from support.hosts import build_wheel, environment_from, second_host
from support.paths import TESTS
from support.wait import wait_for

BIN = Path(sys.executable).parent
SWEEP = """
name: tiny
program: prunefleet
command: ["${env}", prunefleet, trial]
method: bayes
metric: {name: score, goal: maximize}
run_cap: CAP
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, metric: {value: top1}, max_drop: {value: 0.05}}}
  measure: {parameters: {device: {value: local}, precision: {value: f32}}}
  recipe: {parameters: {epochs: {value: 1}}}
"""


class Up:
    """A `prunefleet up` of its own folder, started like a user would."""

    def __init__(self, folder: Path, cap: int, *options: str) -> None:
        self.folder, self.options = folder, options
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.yaml").write_text(SWEEP.replace("CAP", str(cap)))
        self.log = folder / "up.log"

    def start(self) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "PYTHONPATH": str(TESTS), "PRUNEFLEET_CACHE": str(self.folder / "cache")}
        env |= {"HOME": str(self.folder), "WANDB_ERROR_REPORTING": "false", "TINY_WIDTH": "32"}
        words = ("--port", "0", "--until-done", "--mixed", "4")
        argv = [str(BIN / "prunefleet"), "up", "sweep.yaml", *words, *self.options]
        with self.log.open("ab") as out:
            return subprocess.Popen(argv, cwd=self.folder, env=env, stdout=out, stderr=out, start_new_session=True)

    def state(self) -> dict:
        path = self.folder / ".prunefleet" / "up.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list:
        """The sweep's runs as wandb.Api reads them, oldest first."""
        monkeypatch.setenv("WANDB_BASE_URL", self.state()["url"])
        monkeypatch.setenv("WANDB_API_KEY", self.state()["api_key"])
        return list(wandb.Api(timeout=30).sweep(self.state()["sweep"]).runs)


@pytest.fixture
def up_in(tmp_path: Path) -> Iterator:
    """Makes `Up`s, and ends whatever of them still runs."""
    started: list[subprocess.Popen] = []

    def make(cap: int, *options: str) -> Up:
        made = Up(tmp_path / "here", cap, *options)
        plain = made.start
        made.start = lambda: (started.append(plain()), started[-1])[1]  # type: ignore[method-assign]
        return made

    yield make
    for process in started:
        process.kill()
        process.wait(60)
    for pid in find(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def done(process: "subprocess.Popen[bytes]", up: Up, seconds: float = 400) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"not done in {seconds} s:\n{up.text()[-3000:]}")


def find(folder: Path, *words: str) -> list[int]:
    """Process ids whose command line holds all words and whose environment names the test's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        mine = int(process.name) != os.getpid() and str(folder).encode() in environment
        if mine and all(word.encode() in line for word in words):
            found.append(int(process.name))
    return found


@pytest.mark.parametrize(("agents", "cap"), [(1, 3), pytest.param(2, 6, marks=pytest.mark.slow)])
def test_killed_parts_and_ctrl_c_lose_nothing(up_in, monkeypatch: pytest.MonkeyPatch, agents: int, cap: int) -> None:
    """Trial, agent and hub killed with -9, then Ctrl-C: the same command ends the same sweep with exact counts."""
    up = up_in(cap, "--agents", str(agents))
    process = up.start()
    wait_for(lambda: find(up.folder, "-m", "prunefleet.agent", "trial") or process.poll() is not None, 400)
    assert process.poll() is None, up.text()
    os.kill(find(up.folder, "-m", "prunefleet.agent", "trial")[0], signal.SIGKILL)
    wait_for(lambda: any(run.state == "finished" for run in up.runs(monkeypatch)), 120, every=1)
    os.kill(find(up.folder, "wandb", "agent", "--forward-signals")[0], signal.SIGKILL)
    os.kill(find(up.folder, "prunefleet.infra.cli", "hub")[0], signal.SIGKILL)
    wait_for(lambda: "started again" in up.text(), 60)
    wait_for(lambda: find(up.folder, "-m", "prunefleet.agent", "trial"), 120)
    before, sweep = {run.id: run.summary.get("score") for run in up.runs(monkeypatch)}, up.state()["sweep"]
    os.kill(process.pid, signal.SIGINT)
    assert done(process, up, 90) == 130
    assert f"goes on with sweep {sweep}" in up.text()
    assert not find(up.folder, "-m", "prunefleet.agent", "trial") and not find(up.folder, "prunefleet.infra.cli", "hub")

    again = up.start()
    assert done(again, up) == 0, up.text()[-3000:]
    answer = json.loads((up.folder / "demo.json").read_text())
    assert answer["sweep"] == sweep
    assert answer["agents"] == agents
    _assert_answered(answer, cap)
    assert {"winner", "controls", "hypervolume_gain", "seconds"} <= set(answer)
    assert all(score is None or score for score in before.values())
    for told in ("Going on with sweep", "Look again", "Add a machine"):
        assert told in up.text()
    (log,) = up.folder.rglob("plan.log")
    worth = re.findall(r"^(?:cheap|dear|pointless): (\w+) ", log.read_text(), re.M)
    assert sorted(worth) == ["conv1", "conv2", "conv3"]


# `make test` has the test above, a host that joins by a line and leaves in tests/wire/test_join_wire.py, and the wheel
# installed by pip in tests/unit/hub/test_wheel.py.
@pytest.mark.netns
@pytest.mark.slow
def test_a_second_machine_joins_with_the_printed_lines(up_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed lines make `wandb agent` join from another host that has only the wheel, and its trials count."""
    environment = environment_from(build_wheel(tmp_path / "wheel"), tmp_path / "other")
    with second_host("pf-second", tmp_path / "home") as host:
        up = up_in(9, "--agents", "1", "--host", host.address)
        process = up.start()
        lines = wait_for(lambda: _pasted(up) or process.poll() is not None, 400)
        assert process.poll() is None, up.text()
        own = lines.replace(str(BIN.parent), str(environment))
        (tmp_path / "home" / "tiny").mkdir()
        for task in ("tiny_task.py", "brief_task.py", "support/brief.py"):
            (tmp_path / "home" / "tiny" / task).parent.mkdir(exist_ok=True)
            (tmp_path / "home" / "tiny" / task).write_text((TESTS / task).read_text())
        other = host.start(f"export PYTHONPATH={tmp_path}/home/tiny; {own}", tmp_path / "other.log")
        assert done(process, up) == 0, up.text()[-3000:]
        other.wait(60)
        answer = json.loads((up.folder / "demo.json").read_text())
        _assert_answered(answer, 9)
        hosts = {trial["host"] for trial in answer["trials"]}
        assert len(hosts) == 2 and host.name in hosts, (hosts, (tmp_path / "other.log").read_text()[-2000:])


def _assert_answered(answer: dict, count: int) -> None:
    """So many runs, each scored or too slow to win; none is lost, none is there twice."""
    outcomes = answer["outcomes"]
    assert sum(outcomes.values()) == count and set(outcomes) <= {"scored", "skipped"} and outcomes["scored"], answer


def _pasted(up: Up) -> str:
    """The lines to paste, joined as a shell would read them; nothing until all are printed."""
    lines = re.findall(r"^ +((?:export WANDB_|PATH=).*)$", up.text(), re.MULTILINE)
    return "; ".join(lines) if len(lines) >= 3 else ""
