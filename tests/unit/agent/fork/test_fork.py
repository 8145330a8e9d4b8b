"""Trials forked off a loaded process: what they are given, how they are ended, and that nothing is left of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fork import FakeAgent, descriptors
from support.wait import wait_for


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with FakeAgent(tmp_path) as started:
        yield started


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_trial_is_forked_and_has_what_its_agent_gave_it(agent: FakeAgent) -> None:
    """Environment, folder, arguments, streams and session are those of what the agent started; so is the exit code."""
    first = agent.start("exit_7")
    assert agent.wait(first) == 7
    told = agent.told("exit_7")
    assert told["pid"] != first and told["session"] == agent.pid and told["group"] == told["pid"]
    assert (told["folder"], told["argv"]) == (str(agent.folder), ["trial"])
    assert told["env"]["WANDB_RUN_ID"] == told["env"]["WANDB_SWEEP_PARAM_PATH"] == "exit_7"
    assert told["env"].get("OPENBLAS_NUM_THREADS") == os.environ.get("OPENBLAS_NUM_THREADS")
    assert told["streams"] == ["/dev/null", *2 * [str(agent.folder / "output")]]
    code, again = agent.run("exit_0")
    assert (code, again["parent"]) == (0, told["parent"]), "the second trial has another server"
    assert agent.output() == "done 7\ndone 0\n"


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV])
def test_the_signal_that_ends_a_trial_ends_its_stand_in(agent: FakeAgent, number: signal.Signals) -> None:
    """The agent sees the very signal that ended the trial."""
    code, told = agent.run(f"signal_{number.value}")
    assert code == -number
    assert told["parent"] != agent.pid


def test_a_stop_reaches_the_trial_once(agent: FakeAgent) -> None:
    """SIGTERM to what the agent started, or to its process group, is heard by the trial, and not twice."""
    for run, send in (("wait_one", os.kill), ("wait_two", os.killpg)):
        started = agent.start(run)
        agent.told(run)
        send(started, signal.SIGTERM)
        assert agent.wait(started) == 101


def test_a_killed_stand_in_takes_its_trial_along(agent: FakeAgent) -> None:
    """kill -9 reaches the trial and what that started, and the next trial is forked as before."""
    started = agent.start("wait")
    told = agent.told("wait")
    os.kill(started, signal.SIGKILL)
    assert agent.wait(started) == -signal.SIGKILL
    wait_for(lambda: gone(told["pid"]) and gone(told["child"]))
    assert agent.run("exit_3")[1]["parent"] == told["parent"]


def test_a_killed_server_takes_its_trial_along(agent: FakeAgent) -> None:
    """Where the server is killed so is the trial, and its agent hears of it; the next one starts a server anew."""
    started = agent.start("wait")
    told = agent.told("wait")
    os.kill(told["parent"], signal.SIGKILL)
    assert agent.wait(started) == -signal.SIGKILL
    wait_for(lambda: gone(told["pid"]))
    code, again = agent.run("exit_3")
    assert code == 3 and again["parent"] not in (told["parent"], agent.pid)
    assert len(agent.sockets()) == 1


def test_a_server_ends_with_its_agent_after_the_last_trial(agent: FakeAgent) -> None:
    """A killed agent leaves its trial to end by itself, as ever; the server goes then, and its socket at once."""
    started = agent.start("wait")
    told = agent.told("wait")
    agent.kill()
    wait_for(lambda: not agent.sockets())
    assert not gone(told["pid"]) and not gone(told["parent"])
    os.kill(started, signal.SIGTERM)
    wait_for(lambda: not agent.members())
    assert not agent.sockets()


def test_a_server_that_is_asked_to_stop_waits_for_its_trial(agent: FakeAgent) -> None:
    """SIGTERM to the server alone harms no trial; there is none for the next one."""
    started = agent.start("wait")
    told = agent.told("wait")
    os.kill(told["parent"], signal.SIGTERM)
    wait_for(lambda: not agent.sockets())
    os.kill(started, signal.SIGTERM)
    assert agent.wait(started) == 101
    wait_for(lambda: gone(told["parent"]))
    assert agent.run("exit_3")[1]["parent"] != told["parent"]


def test_another_environment_is_not_taken_for_the_servers(agent: FakeAgent) -> None:
    """Libraries read their environment when they are loaded: a trial with another one runs in its own process."""
    agent.run("exit_0")
    started = agent.start("exit_1", OMP_NUM_THREADS="7")
    assert agent.wait(started) == 1
    assert agent.told("exit_1")["pid"] == started


def test_a_changed_file_is_loaded_anew(agent: FakeAgent) -> None:
    """Where a file that the server has loaded changes, no further trial is forked off it."""
    _, before = agent.run("exit_0")
    (agent.folder / "sitecustomize.py").write_text((agent.folder / "sitecustomize.py").read_text() + "# new\n")
    started = agent.start("exit_1")
    assert agent.wait(started) == 1 and agent.told("exit_1")["pid"] == started
    wait_for(lambda: gone(before["parent"]))
    assert agent.run("exit_2")[1]["parent"] not in (before["parent"], agent.pid)


def test_the_server_can_be_switched_off(agent: FakeAgent) -> None:
    """With PRUNEFLEET_FORK=0 each trial is the process that the agent started."""
    started = agent.start("exit_1", PRUNEFLEET_FORK="0")
    assert agent.wait(started) == 1
    assert agent.told("exit_1")["pid"] == started and not agent.sockets()


def test_the_socket_is_private(agent: FakeAgent) -> None:
    """Nobody else may have trials run; what a killed server leaves is tidied up by that of another agent."""
    _, told = agent.run("exit_0")
    (socket,) = agent.sockets()
    assert (socket.stat().st_mode & 0o077, socket.parent.stat().st_mode & 0o077) == (0, 0)
    os.kill(told["parent"], signal.SIGKILL)
    agent.kill()
    with FakeAgent(agent.folder) as other:
        other.run("exit_0")
        assert len(other.sockets()) == 1 and other.sockets() != [socket]


def test_forks_leave_nothing_in_the_server(agent: FakeAgent) -> None:
    """After ten trials, some of them killed, the server has the descriptors and children that it had after two."""
    server = [agent.run(f"exit_{number}") for number in range(2)][-1][1]["parent"]
    before = descriptors(server)
    for number in range(10):
        if number % 3:
            agent.run(f"exit_{number}")
        else:
            started = agent.start(f"wait_{number}")
            agent.told(f"wait_{number}")
            os.kill(started, signal.SIGKILL)
            agent.wait(started)
    assert agent.run("exit_50")[1]["parent"] == server
    assert descriptors(server) == before
    wait_for(lambda: set(agent.members()) == {agent.pid, server})


PRELOADED = """
import sys
from pathlib import Path
import torch
asked = []
torch._C._cuda_getDeviceCount = lambda: asked.append(1) or 0
from prunefleet.agent.fork.fork_server import preload
state = torch.get_rng_state()
preload()
print(len(list(Path("/proc/self/task").iterdir())), asked, torch.equal(state, torch.get_rng_state()))
print([name for name in ("wandb.apis.public", "openvino", "torch", "prunefleet.agent.trial.run")
       if name not in sys.modules])
"""


def test_what_is_loaded_may_be_forked() -> None:
    """Loading starts no thread, does not look for a GPU, which no fork could use then, and leaves the seed alone."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", PRELOADED]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "1 [] True\n[]\n", done.stderr
