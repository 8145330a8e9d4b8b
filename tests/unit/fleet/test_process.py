"""Children of `prunefleet up`: their end in tiers, their steps, and what is remembered between two calls."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from prunefleet.infra.fleet.supervision import supervise
from prunefleet.infra.fleet.supervision.process import (
    Child,
    Impatience,
    dies_with_us,
    heads,
    is_deaf,
    keep_short,
    session_members,
    stop_all,
)
from prunefleet.infra.fleet.supervision.supervise import Agent
from prunefleet.infra.fleet.up.agent_commands import StepFailed, _follow
from prunefleet.infra.fleet.up.state import State, hold
from prunefleet.objective.errors import BadInput

from support.wait import wait_for


def child(tmp_path: Path, code: str) -> Child:
    return Child("child", [sys.executable, "-u", "-c", textwrap.dedent(code)], os.environ, tmp_path / "log", tmp_path)


def test_a_willing_child_ends_at_the_first_tier(tmp_path: Path) -> None:
    """A child that ends on SIGTERM is not killed."""
    one = child(tmp_path, "import signal; print('ready'); signal.pause()")
    wait_for(lambda: one.last_line() == "ready")
    stop_all([one], patience=10)
    assert one.ended() == -signal.SIGTERM


def test_a_stubborn_child_is_killed_with_its_children(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed in the last tier, and so is what it started; each further tier is told."""
    one = child(
        tmp_path,
        """
        import signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print('ready', flush=True); s.pause()"
        subprocess.Popen([sys.executable, "-c", code], process_group=0).wait()
        """,
    )
    wait_for(lambda: one.last_line() == "ready")
    assert len(session_members(one.pid)) == 2
    said: list[str] = []
    stop_all([one], patience=0.3, say=said.append)
    assert said == ["Still there, and asked once more: child", "Still there, and killed: child"]
    assert one.ended() == -signal.SIGKILL
    wait_for(lambda: not session_members(one.pid))


BELOW = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print('ready', flush=True); s.pause()"
BETWEEN = f"""
import signal, subprocess, sys
below = subprocess.Popen([sys.executable, "-c", {BELOW!r}])
def stop(*_):
    print("told", flush=True)
    below.kill()
    below.wait()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
signal.pause()
"""


def test_what_a_killed_child_leaves_is_asked_once(tmp_path: Path) -> None:
    """Where the child is gone, those it started are asked to stop, and tell what they have started in turn."""
    starts = f"import signal, subprocess as s, sys; s.Popen([sys.executable, '-c', {BETWEEN!r}]); signal.pause()"
    one = child(tmp_path, starts)
    wait_for(lambda: one.last_line() == "ready")
    os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: one.ended() is not None)
    left = one.members()
    assert len(left) == 2 and len(heads(left)) == 1
    stop_all([one], patience=10)
    assert one.last_line() == "told" and not one.members()


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """When we are killed with -9, the kernel ends our children, also those that have only just been forked."""
    code = f"""
        import os, pathlib, signal, sys
        from prunefleet.infra.fleet.supervision.process import Child
        one = Child("c", [sys.executable, "-c", "import signal; signal.pause()"], os.environ,
                    pathlib.Path({str(tmp_path / "log")!r}), pathlib.Path({str(tmp_path)!r}))
        print(one.pid, flush=True)
        signal.pause()
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        wait_for(lambda: b"signal.pause" in Path(f"/proc/{pid}/cmdline").read_bytes())
        parent.kill()
    wait_for(lambda: not _alive(pid))


def test_a_child_that_was_orphaned_before_it_could_ask_ends() -> None:
    """Whose parent is another than the one that started it does not begin."""
    argv = [*dies_with_us(["echo", "began"])]
    argv[argv.index(str(os.getpid()))] = "1"
    ended = subprocess.run(argv, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (143, b"")
    assert subprocess.run(dies_with_us(["echo", "began"]), capture_output=True, check=True).stdout == b"began\n"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_asking_again_skips_a_tier() -> None:
    """The first Ctrl-C asks to stop; only a later one counts as asking again."""
    impatient = Impatience()
    assert not impatient.asked()
    impatient._note()
    assert impatient.asked()
    assert not impatient.asked_again()
    impatient._note()
    assert impatient.asked_again()
    assert not impatient.asked_again()


def test_state_survives_and_is_private(tmp_path: Path) -> None:
    """What was saved is read back by the next call, and only the owner can read the file."""
    with hold(tmp_path / "data") as state:
        state.save(api_key="k", sweep="e/p/s")
        state.add_seconds("dense", 1.5)
        state.add_seconds("dense", 1.0)
    with hold(tmp_path / "data") as state:
        assert (state["sweep"], state["seconds"]) == ("e/p/s", {"dense": 2.5})
    assert (tmp_path / "data" / "up.json").stat().st_mode & 0o077 == 0


def test_a_folder_serves_one_up_at_a_time(tmp_path: Path) -> None:
    """A second `prunefleet up` on the same folder is refused in one line that names the folder."""
    with hold(tmp_path), pytest.raises(BadInput, match="another `prunefleet up`"), hold(tmp_path):
        pass


def test_an_unfinished_state_file_leaves_the_old_one(tmp_path: Path) -> None:
    """A half-written draft is not what the next call reads."""
    state = State(tmp_path / "up.json")
    state.save(sweep="old")
    (tmp_path / "up.new").write_text('{"sweep": "ne')
    assert State(tmp_path / "up.json")["sweep"] == "old"


def test_progress_lines_are_followed_over_pieces() -> None:
    """Progress, seconds and what was found are read from whole lines, wherever the output was cut, and no others."""
    shown, spent, said = [], [], []
    found = ["group stem: 32 channels of stem", "whole head: it is an output", "cheap: stem at 16 of 32 channels …"]
    text = "noise\nprogress dense 3/8 top-1 0.91\nseconds dense 41.5\nprogress profile 1/40\n" + "\n".join([*found, ""])
    rest = ""
    for letter in text:
        rest = _follow(rest + letter, lambda *row: shown.append(row), lambda *row: spent.append(row), said.append)
    assert shown == [("dense", "3/8 top-1 0.91"), ("profile", "1/40")]
    assert spent == [("dense", 41.5)] and said == found


def test_a_failed_step_keeps_its_exit_code() -> None:
    """A step's failure carries the command's own line and exit code."""
    error = StepFailed("task: got 'x'; use one of …", 2)
    assert (str(error), error.exit_code) == ("task: got 'x'; use one of …", 2)


def test_a_log_stays_short_while_its_process_goes_on(tmp_path: Path) -> None:
    """What was written before is in the older file, what comes after in the log; a short log is left alone."""
    code = "import sys; print('x' * 90, flush=True); sys.stdin.readline(); print('after', flush=True)"
    log = tmp_path / "agent-1.log"
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=out, text=True)
    wait_for(lambda: log.stat().st_size > 90, 30)
    keep_short(log, 1000)
    assert not log.with_name("agent-1.log.1").exists()
    keep_short(log, 50)
    process.communicate("go on\n", timeout=30)
    assert log.read_text() == "after\n" and log.with_name("agent-1.log.1").read_text().startswith("xxx")
    keep_short(tmp_path / "none.log")


def test_an_agent_that_keeps_ending_is_started_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause before an agent's next start doubles while it keeps ending early."""
    monkeypatch.setattr(
        "prunefleet.infra.fleet.supervision.supervise.agent_command",
        lambda sweep, most=None: [sys.executable, "-c", ""],
    )
    agent, now = Agent(1, "e/p/s", dict(os.environ), tmp_path, tmp_path), 1000.0
    starts = []
    for tick in range(40):
        agent.tend(now + tick)
        if agent.child is not None:
            starts.append(tick)
            assert agent.child.wait(60)
    assert starts == [0, 3, 8, 17, 34]


TALKER = """
import subprocess, sys, time
first = subprocess.Popen([sys.argv[1], "60"])
print(first.pid, flush=True)
if sys.argv[2:]:
    input()
    second = subprocess.Popen([sys.argv[1], "60"])
    print(second.pid, flush=True)
time.sleep(60)
"""


def _core(folder: Path) -> str:
    """A program of the name of the one that the client's agent speaks through."""
    return shutil.copy(shutil.which("sleep") or "", folder / "wandb-core")


def test_an_agent_is_deaf_once_what_it_speaks_through_was_killed(tmp_path: Path) -> None:
    """Not while that lives, and no more once the agent has started another."""
    argv = [sys.executable, "-c", TALKER, _core(tmp_path), "twice"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdin and agent.stdout
        first = int(agent.stdout.readline())
        assert not is_deaf(agent.pid)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: is_deaf(agent.pid), 60)
        agent.stdin.write("\n")
        agent.stdin.flush()
        second = int(agent.stdout.readline())
        assert not is_deaf(agent.pid)
        os.kill(second, signal.SIGTERM)
        agent.kill()
    assert not is_deaf(os.getpid())


HANGS_UP = """
import socket, subprocess, sys
core = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
core.stdout.readline()
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[2])
print("connected", flush=True)
input()
client.close()
core.wait()
"""
LISTENER = """
import socket, sys
open("/proc/self/comm", "w").write("wandb-core")
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
accepted, _ = server.accept()
accepted.recv(1)
accepted.close()
server.accept()
"""


def test_an_agent_is_deaf_once_it_has_hung_up(tmp_path: Path) -> None:
    """Not while it is connected to what it speaks through, but where it only waits for that one's end."""
    argv = [sys.executable, "-c", HANGS_UP, LISTENER, str(tmp_path / "a socket")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, start_new_session=True, **pipes) as agent:
        assert agent.stdin and agent.stdout
        try:
            assert agent.stdout.readline() == "connected\n"
            assert not is_deaf(agent.pid)
            agent.stdin.write("\n")
            agent.stdin.flush()
            wait_for(lambda: is_deaf(agent.pid), 60)
        finally:
            os.killpg(agent.pid, signal.SIGKILL)


def test_a_deaf_agent_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment after what it speaks through was killed it is asked to end, and another takes its place."""
    argv = [sys.executable, "-c", TALKER, _core(tmp_path)]
    monkeypatch.setattr(supervise, "agent_command", lambda sweep, most=None: argv)
    agent = Agent(1, "e/p/s", dict(os.environ), tmp_path, tmp_path)
    agent.tend(100.0)
    first = agent.child
    assert first is not None
    core = int(wait_for(lambda: first.log.read_text().strip(), 60))
    os.kill(core, signal.SIGKILL)
    wait_for(lambda: is_deaf(first.pid), 60)
    agent.tend(106.0)
    assert first.ended() is None, "the client may start another"
    agent.tend(106.0 + supervise.DEAF_S + 1)
    assert first.wait(60)
    agent.tend(130.0)
    agent.tend(140.0)
    assert agent.starts == 2 and agent.child is not first and agent.child is not None
    stop_all([agent.child], 5)
