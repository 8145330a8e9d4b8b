"""A hub to test against: as a process of its own that can be killed, or in this process with a clock to turn."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from prunefleet.infra.cli import main
from prunefleet.infra.controller.contract import Exhausted, Suggestion
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.lifecycle import Timeouts
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.rows import SweepRow, UserRow
from prunefleet.infra.server import create_app

from support.clients import CURRENT, Client
from support.wait import wait_for

SWEEP = """
program: train.py
method: random
metric: {name: loss, goal: minimize}
parameters:
  lr: {min: 0.0, max: 1.0}
"""


class HubProcess:
    """`python -m prunefleet.infra.server` on a free port of 127.0.0.1, in `folder/hub`; a context manager.

    What runs in its environment uses `client`, whichever wandb the hub's own Python has.
    """

    def __init__(
        self,
        folder: Path,
        timing: Mapping[str, float] | None = None,
        options: Sequence[str] = (),
        client: Client = CURRENT,
    ) -> None:
        self.folder = folder
        self.client = client
        self._options = list(options)
        self._timing = dict(timing or {})
        self._port = 0
        self.url = self.api_key = self.admin_token = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            end_session(child)
        self.stop()

    def start(self) -> None:
        """Start the hub and wait until it accepts connections; the port stays the same over restarts."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        argv = [
            sys.executable,
            "-m",
            "prunefleet.infra.server",
            "--data",
            str(self.folder / "hub"),
            "--port",
            str(self._port),
        ]
        argv += ["--ready-file", str(ready), "--timing", json.dumps(self._timing), *self._options]
        with (self.folder / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: ready.exists() or self._ended(), 120)
        if not ready.exists():
            raise AssertionError(f"the hub did not start: {(self.folder / 'hub.log').read_text()[-2000:]}")
        told = json.loads(ready.read_text())
        self.url, self.admin_token = told["url"], told["admin_token"]
        self.api_key = told["api_key"] or self.api_key
        self._port = int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """The hub's process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """Ask the hub to end; its exit code."""
        return self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """End the hub as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again on the same folder and port, after `stop` or `kill9`."""
        self.start()

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _end(self, number: int) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        return self._process.wait(60)

    def env(self, **more: str) -> dict[str, str]:
        """An environment in which wandb knows this hub alone and leaves nothing outside the folder."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        own = {
            "HOME": self.folder / "home",
            "WANDB_DIR": self.folder,
            "WANDB_CONFIG_DIR": self.folder / "config",
            "WANDB_CACHE_DIR": self.folder / "cache",
            "WANDB_DATA_DIR": self.folder / "staging",
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.api_key,
            "WANDB_ERROR_REPORTING": "false",
            "PATH": f"{self.client.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        return kept | {key: str(value) for key, value in own.items()} | more

    def popen(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        """A command in the hub's environment, in a session of its own; ended with the hub at the latest."""
        child = subprocess.Popen(
            argv,
            env=self.env(**env),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def run(self, *argv: str, check: bool = True, **env: str) -> str:
        """The output of a command in the hub's environment."""
        child = self.popen(*argv, **env)
        output, _ = child.communicate(timeout=240)
        assert child.returncode == 0 or not check, f"{argv} ended with {child.returncode}:\n{output}"
        return output

    def python(self, code: str, check: bool = True, **env: str) -> str:
        """The output of a Python program in the hub's environment."""
        return self.run(str(self.client.python), "-c", code, check=check, **env)

    def wandb(self, *argv: str, check: bool = True, **env: str) -> str:
        """The output of a `wandb` command."""
        return self.run(str(self.client.python), "-m", "wandb", *argv, check=check, **env)

    def agent(self, sweep: str, **env: str) -> subprocess.Popen[str]:
        """A `wandb agent` of the sweep at entity/project/id."""
        return self.popen(str(self.client.python), "-m", "wandb", "agent", sweep, **env)

    def query(self, text: str, **variables: Any) -> Any:
        """The data that a GraphQL operation answers; an AssertionError where it fails."""
        status, answer = self.post("/graphql", {"query": text, "variables": variables})
        assert status == 200, (status, answer)
        return answer["data"]

    def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, Any]:
        """Status and JSON of a POST, as the wandb client would send it."""
        return post(self.url + path, body, {"Authorization": basic(self.api_key if key is None else key)})

    def admin(self, path: str, body: Any, token: str | None = None, method: str = "POST") -> tuple[int, Any]:
        """Status and JSON of an administrator's request."""
        bearer = self.admin_token if token is None else token
        return post(self.url + path, body, {"Authorization": f"Bearer {bearer}"}, method)


def command(*words: str | Path) -> tuple[int, str]:
    """Exit code of `prunefleet hub …`, and all that it says."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(["hub", *map(str, words)])
    return code, said.getvalue()


def end_session(child: subprocess.Popen[str]) -> None:
    """End a process and all it started, agents' trials in groups of their own included; nothing outlives a test."""
    for pid in [child.pid, *(int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())]:
        with suppress(ProcessLookupError):
            if os.getsid(pid) == child.pid:
                os.kill(pid, signal.SIGKILL)
    child.wait(30)
    if child.stdout is not None:
        child.stdout.close()


def basic(key: str) -> str:
    """HTTP Basic credentials as the wandb client sends them."""
    return "Basic " + base64.b64encode(f"api:{key}".encode()).decode()


def post(url: str, body: Any, headers: Mapping[str, str], method: str = "POST") -> tuple[int, Any]:
    """Status and JSON body of a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Suggestions:
    """Hands out numbered suggestions, or what it is told to answer; counts the pokes."""

    def __init__(self) -> None:
        self.count = 0
        self.poked: list[int] = []
        self.answer: Callable[[], Suggestion | Exhausted | None] | None = None

    def take(self, _sweep_id: int) -> Suggestion | Exhausted | None:
        """The next suggestion."""
        if self.answer is not None:
            return self.answer()
        self.count += 1
        return Suggestion({"lr": self.count}, {"lr": self.count}, {"reason": f"number {self.count}"})

    def poke(self, sweep_id: int) -> None:
        """Remember that it was asked to think again."""
        self.poked.append(sweep_id)

    def advice(self, _sweep_id: int) -> Advice:
        """Nothing."""
        return Advice()

    @property
    def said(self) -> int:
        """Never."""
        return 0


@contextmanager
def local_hub(folder: Path, clock: Clock, timeouts: Timeouts | None = None) -> Iterator[Hub]:
    """A hub in this process, without a server; its suggester is a `Suggestions`."""
    store = Store(folder)
    try:
        yield Hub(store, Suggestions(), timeouts, clock)
    finally:
        store.close()


@contextmanager
def served(hub: Hub, admin_token: str = "token") -> Iterator[str]:
    """The hub's endpoints on a free port of 127.0.0.1, in a thread; their base address."""
    app = create_app(hub, admin_token)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def first_user(hub: Hub) -> UserRow:
    """The hub's first user, made if need be."""
    hub.auth.ensure_first_user()
    return hub.auth.users()[0]


def make_sweep(hub: Hub, text: str = SWEEP, **more: Any) -> SweepRow:
    """A sweep of the first user in the project `demo`."""
    return hub.create_sweep(first_user(hub), SweepChange(project="demo", config_yaml=text, **more))


def make_agent(hub: Hub, sweep: SweepRow, host: str = "host") -> int:
    """An agent of the sweep; its id."""
    return hub.register_agent(first_user(hub), sweep.entity, sweep.project, sweep.name, host).id


def names(commands: Sequence[Mapping[str, Any] | None]) -> list[str | None]:
    """The run ids of commands; None where there was none."""
    return [command["run_id"] if command else None for command in commands]
