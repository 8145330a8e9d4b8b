"""Many trials on one host, forked for one agent, some of them killed: nothing is left of them but their results."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.infra.fleet.supervision.process import session_members

from support.fork import FakeAgent, descriptors
from support.hub import HubProcess
from support.paths import TESTS
from support.wait import wait_for

CONFIG = """
task: {value: "brief_task:TinyTask"}
objective: {value: {kind: fastest, max_drop: 0.05}}
recipe: {value: {epochs: 0.2, seed: SEED}}
ratio: {value: {conv1: 0.5}}
"""
LIMIT_MB = 1


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[FakeAgent, HubProcess]]:
    with HubProcess(tmp_path / "hub") as hub:
        more = {"PRUNEFLEET_CACHE": str(tmp_path / "cache"), "PRUNEFLEET_CACHE_MB": str(LIMIT_MB)}
        env = hub.env(**more, OMP_NUM_THREADS="1", WANDB_PROJECT="lab", WANDB_SILENT="true")
        (tmp_path / "agent").mkdir()
        with FakeAgent(tmp_path / "agent", env) as agent:
            yield agent, hub


@pytest.mark.parametrize("count", [2, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_trials_leave_nothing_behind(host: tuple[FakeAgent, HubProcess], tmp_path: Path, count: int) -> None:
    """No process, descriptor, temporary folder, part of a file or lock is left; the cache keeps within its limit."""
    agent, hub = host
    _run(agent, "first")
    (socket,) = agent.sockets()
    (server,) = set(agent.members()) - {agent.pid}
    before = descriptors(server)
    for number in range(count):
        _run(agent, f"run{number}", seed=number, kill=number % 4 == 1)
    wait_for(lambda: set(agent.members()) == {agent.pid, server})
    assert (descriptors(server), agent.sockets()) == (before, [socket])
    _run(agent, "last")
    # A helper of the wandb client that is killed as it starts leaves a small file of its own now and then.
    left = {path.name for path in agent.temporary.iterdir() if not path.name.startswith("wandb-symon-portfile-")}
    assert left == {socket.parent.name}
    assert {path.name for path in socket.parent.iterdir()} == {socket.name, "gate", "work"}
    for name in ("gate", "work"):
        with (socket.parent / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    cache = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in cache if path.name.startswith(".")]
    kept = sum(path.stat().st_size for path in cache if path.parent.name == "trials")
    assert 0 < kept <= LIMIT_MB * 2**20
    states = [run["state"] for run in _runs(hub)]
    assert states.count("finished") == count - len(range(1, count, 4)) + 2
    agent.kill()
    wait_for(lambda: not agent.members() and not agent.sockets())


def _run(agent: FakeAgent, name: str, seed: int = 0, kill: bool = False) -> None:
    """A trial of that seed to its end, or killed while it works in its temporary folder."""
    config = agent.folder / "config.yaml"
    config.write_text(CONFIG.replace("SEED", str(seed)))
    started = agent.start(name, WANDB_SWEEP_PARAM_PATH=str(config))
    if kill:
        wait_for(lambda: list(agent.temporary.glob("prunefleet-trial-*")), 60, every=0.01)
        os.kill(started, signal.SIGKILL)
    assert agent.wait(started) == (-signal.SIGKILL if kill else 0), agent.output()[-2000:]


def _runs(hub: HubProcess) -> list[dict[str, str]]:
    text = 'query { project(name: "lab", entityName: "local") { runs(first: 500) { edges { node { name state } } } } }'
    return [edge["node"] for edge in hub.query(text)["project"]["runs"]["edges"]]


SWEEP = """
program: prunefleet
command: ["${env}", "%s", "-m", "prunefleet.agent", trial]
method: grid
metric: {name: score, goal: maximize}
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, max_drop: {value: 0.05}}}
  recipe: {parameters: {epochs: {value: 0.2}, seed: {values: [1, 2, 3]}}}
  ratio: {parameters: {conv1: {value: 0.5}}}
"""


# `make test` has Ctrl-C with real agents in tests/acceptance/test_up_tiny.py, and stops and kills of trial, agent and
# fork server in tests/unit/agent/fork/test_fork.py.
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_agent_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C end agent, trial and fork server; a killed agent's trial ends by itself, then the server."""
    with HubProcess(tmp_path / "hub") as hub:
        (tmp_path / "sweep.yaml").write_text(SWEEP % sys.executable)
        told = hub.run(sys.executable, "-m", "wandb", "sweep", "--project", "lab", str(tmp_path / "sweep.yaml"))
        sweep = "local/lab/" + told.split("wandb agent local/lab/")[1].split()[0]
        tests, temporary = TESTS, tmp_path / "tmp"
        temporary.mkdir()
        env = {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PRUNEFLEET_CACHE": str(tmp_path / "cache")}
        env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PRUNEFLEET_CACHE_MB": "0"}
        seconds = "4" if number == signal.SIGKILL else "300"
        hub.run(sys.executable, "-m", "prunefleet.agent", "baseline", str(tmp_path / "sweep.yaml"), **env)
        argv = [sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep]
        agent = hub.popen(*argv, **env, TINY_SECONDS=seconds)
        wait_for(lambda: list(temporary.glob("prunefleet-trial-*")), 120)
        agent.send_signal(number)
        agent.wait(120)
        wait_for(lambda: not session_members(agent.pid), 120)
        assert not list(temporary.glob("prunefleet-*/fork-*")) and not list(temporary.glob("prunefleet-trial-*"))
