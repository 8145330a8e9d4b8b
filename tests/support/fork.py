"""A stand-in for `wandb agent` and for what a trial does, to see trials forked, signalled and killed in no time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.paths import ROOT, TESTS
from support.wait import wait_for

# Loaded by every Python of the agent below: a trial does what the first word of its run's id says.
TRIAL = """
import os, sys

def told(**more):
    import json
    from pathlib import Path
    streams = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
    facts = {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0)}
    facts |= {"folder": os.getcwd(), "argv": sys.argv[1:], "env": dict(os.environ), "streams": streams, **more}
    draft = Path(f"{os.environ['WANDB_RUN_ID']}.draft")
    draft.write_text(json.dumps(facts))
    draft.rename(f"{os.environ['WANDB_RUN_ID']}.json")

def main():
    import signal, subprocess, time
    word, _, number = os.environ["WANDB_RUN_ID"].partition("_")
    heard = []
    if word == "wait":
        signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        child = subprocess.Popen(["sleep", "600"])
        told(child=child.pid)
        while not heard:
            time.sleep(0.01)
        time.sleep(0.3)  # not to wait for anything: a signal that came twice would come now
        child.kill()
        child.wait()
        return 100 + len(heard)
    told()
    if word == "signal":
        os.kill(os.getpid(), int(number))
    print("done", number)
    return int(number) if word == "exit" else 0

if "prunefleet.agent" in sys.orig_argv and "-m" in sys.orig_argv:
    import types
    import prunefleet.agent.fork.fork_server
    prunefleet.agent.fork.fork_server.preload = lambda: None
    stub = types.ModuleType("prunefleet.agent.commands.trial")
    stub.main = main
    sys.modules["prunefleet.agent.commands.trial"] = stub
"""
AGENT = """
import json, os, subprocess, sys
running = {}
for line in sys.stdin:
    asked = json.loads(line)
    if "run" in asked:
        own = {"WANDB_RUN_ID": asked["run"], "WANDB_SWEEP_PARAM_PATH": asked["run"]}
        env = os.environ | own | asked["env"]
        with open("output", "ab") as out:
            command = [sys.executable, "-m", "prunefleet.agent", "trial"]
            one = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0)
        running[one.pid] = one
        print(one.pid, flush=True)
    else:
        print(running.pop(asked["wait"]).wait(), flush=True)
"""


class FakeAgent:
    """Starts trials as `wandb agent` does, in a session of its own; a context manager that ends all of it."""

    def __init__(self, folder: Path, real: Mapping[str, str] | None = None) -> None:
        """`real` is the environment of real trials; without it they do what the first word of their id says."""
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        paths = [str(TESTS), str(ROOT)]
        if real is None:
            (folder / "sitecustomize.py").write_text(TRIAL)
            paths = [str(folder), *paths]
        own = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self.temporary)}
        self._env = {**(os.environ if real is None else real), **own}

    def __enter__(self) -> Self:
        argv = [sys.executable, "-c", AGENT]
        self._process = subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The agent's process id, and its session's."""
        return self._process.pid

    def members(self) -> list[int]:
        """Processes of the agent's session that have not ended."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.pid and state != "Z":
                found.append(int(path.parent.name))
        return found

    def start(self, run: str, **env: str) -> int:
        """Start a trial; the process id of what the agent started."""
        return int(self._ask({"run": run, "env": env}))

    def wait(self, pid: int) -> int:
        """The exit code of what `start` started."""
        return int(self._ask({"wait": pid}))

    def run(self, run: str, **env: str) -> tuple[int, dict[str, Any]]:
        """Exit code of a trial and what it told of itself."""
        code = self.wait(self.start(run, **env))
        return code, self.told(run)

    def told(self, run: str) -> dict[str, Any]:
        """What a trial tells of itself, once it runs."""
        path = self.folder / f"{run}.json"
        wait_for(path.exists)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def kill(self) -> None:
        """End the agent itself with -9."""
        self._process.kill()
        self._process.wait()

    def sockets(self) -> list[Path]:
        """Sockets of fork servers."""
        return list(self.temporary.glob("prunefleet-*/fork-*"))

    def output(self) -> str:
        """What trials printed."""
        return (self.folder / "output").read_text()

    def _ask(self, what: dict[str, Any]) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def descriptors(server: int) -> int:
    """How many descriptors a fork server has once it sleeps and has no trial: it closes a trial's after its end."""
    folder = Path(f"/proc/{server}")

    def idle() -> bool:
        asleep = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "S"
        return asleep and not (folder / "task" / str(server) / "children").read_text()

    wait_for(idle)
    return len(list((folder / "fd").iterdir()))
