"""Forks an agent's trials off a process that has torch, OpenVINO and wandb loaded; see `fork_client`.

There is one for each `wandb agent`, in its session. It ends with the agent, after the last trial, or when a file that
it has loaded changes. It starts no thread and computes nothing, so that its forks are as good as new processes.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefleet.agent.fork.fork_client import LENGTH_BYTES, OF_ONE_TRIAL, address, opened, started

ACCEPT_S = 5.0  # for a client to say what it wants
PR_SET_PDEATHSIG = 1  # prctl(2)
ASKED_TO_STOP = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class ForkRequest:
    """A trial to run: its whole environment, the working directory, and the descriptors of its standard streams."""

    env: Mapping[str, str]
    folder: str
    streams: tuple[int, ...]


@dataclass(frozen=True)
class Running:
    """A forked trial: its process, a descriptor of that, and the connection to its stand-in."""

    pid: int
    descriptor: int
    client: socket.socket


def main(path: Path, agent: int, ready: int) -> int:
    """Serve the agent with this process id until it ends; in a fork, run the trial, and return its exit code.

    `ready` is a descriptor that is written to once clients may connect.
    """
    env, descriptor = dict(os.environ), os.pidfd_open(agent)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would start threads when it is loaded
    preload()
    with Server(path, descriptor, env) as server:
        os.write(ready, b"1")
        os.close(ready)
        request = server.run()
    return 0 if request is None else _trial(request)


def preload() -> None:
    """Load what trials need, and run nothing of it."""
    import prunefleet.agent.commands.trial
    import prunefleet.agent.trial.run
    import prunefleet.agent.trial.stages  # noqa: F401
    from prunefleet.agent.tracking import tracked_run

    tracked_run.preload()
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page


def _trial(request: ForkRequest) -> int:
    """The trial of `request`, in a process that has just been forked."""
    from prunefleet.agent.commands.trial import main as trial

    sys.argv[1:] = ["trial"]
    os.environ.clear()
    os.environ.update(request.env)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(line_buffering=output is sys.stderr or output.isatty())  # type: ignore[union-attr]
    importlib.invalidate_caches()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # Python's own generator sees to it itself
    return trial()


class Server:
    """Listens at a path, forks on request, and tells each client how its trial ended; a context manager."""

    def __init__(self, path: Path, agent: int, env: Mapping[str, str]) -> None:
        self._path, self._agent, self._env, self._pid = path, agent, _shared(env), os.getpid()
        self._loaded = stamps()
        self._alone = len(list(Path("/proc/self/task").iterdir())) == 1
        self._trials: list[Running] = []
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._listening = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> "Server":
        tidy(self._path.parent)
        with opened(self._path.parent) as folder:
            self._listening.bind(address(folder, self._path.name))
        self._path.chmod(0o600)
        self._listening.listen()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminated)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._selector.register(self._agent, selectors.EVENT_READ, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._pid:
            self._end()
        self._close()

    def run(self) -> ForkRequest | None:
        """Serve until the agent has ended and its last trial too: None. In a fork: the request to carry out."""
        while self._trials or not self._ending:
            for key, _ in self._selector.select():
                request: ForkRequest | None = key.data()
                if request:
                    return request
        return None

    def _end(self) -> None:
        """Take no more trials."""
        if not self._ending:
            self._ending = True
            self._path.unlink(missing_ok=True)
            for each in (self._listening, self._agent):
                self._selector.unregister(each)
            self._listening.close()

    def _terminated(self, *_: object) -> None:
        self._end()
        if not self._trials:
            sys.exit(0)

    def _accept(self) -> ForkRequest | None:
        """Fork for a client, or hang up on it; the request in the fork."""
        client, _ = self._listening.accept()
        client.settimeout(ACCEPT_S)
        try:
            request = _received(client)
            if request and self._takes(client, request):
                return self._forked(client, request)
        except (OSError, ValueError, KeyError):
            pass
        client.close()
        return None

    def _takes(self, client: socket.socket, request: ForkRequest) -> bool:
        if stamps(self._loaded) != self._loaded:
            self._end()  # the next trial starts a server anew
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        mine = struct.unpack("3i", credentials)[1] == os.getuid()
        same = _shared(request.env) == self._env and request.folder == str(Path.cwd())
        return mine and same and self._alone and not self._ending

    def _forked(self, client: socket.socket, request: ForkRequest) -> ForkRequest | None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_TO_STOP)  # they would be ours, not the trial's
        pid = os.fork()
        if pid == 0:
            client.close()
            _become_a_trial(self._pid)
            return request
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # the fork does so too: whichever comes first
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)
        for stream in request.streams:
            os.close(stream)
        trial = Running(pid, os.pidfd_open(pid), client)
        self._trials.append(trial)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._abandoned(trial))
        self._selector.register(trial.descriptor, selectors.EVENT_READ, lambda: self._ended(trial))
        with contextlib.suppress(OSError):
            socket.send_fds(client, [b"+"], [trial.descriptor])
        return None

    def _abandoned(self, trial: Running) -> None:
        """The stand-in is gone, killed: so is its trial, with all that it started in its group."""
        if trial in self._trials:
            self._selector.unregister(trial.client)
            os.killpg(trial.pid, signal.SIGKILL)

    def _ended(self, trial: Running) -> None:
        """Tell the stand-in how its trial ended."""
        _, status = os.waitpid(trial.pid, 0)
        self._trials.remove(trial)
        for each in (trial.client, trial.descriptor):
            with contextlib.suppress(KeyError):  # abandoned before
                self._selector.unregister(each)
        with contextlib.suppress(OSError), trial.client:
            trial.client.sendall(status.to_bytes(LENGTH_BYTES, "little"))
        os.close(trial.descriptor)

    def _close(self) -> None:
        """Close every descriptor; the path stays another process's where this one is a fork."""
        self._selector.close()
        self._listening.close()
        os.close(self._agent)
        for trial in self._trials:
            trial.client.close()
            os.close(trial.descriptor)


def tidy(folder: Path) -> None:
    """Remove the sockets of servers that were killed, and whose agents are gone."""
    for path in folder.glob("fork-*-*"):
        with contextlib.suppress(OSError, ValueError):
            _, agent, began = path.name.split("-")
            if not Path(f"/proc/{agent}").exists() or started(int(agent)) != began:
                path.unlink()


def _shared(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in OF_ONE_TRIAL}


def _received(client: socket.socket) -> ForkRequest | None:
    """What a client sends: the length of a document with its streams, then the document. None where it hangs up."""
    head, streams, _, _ = socket.recv_fds(client, LENGTH_BYTES, 3)
    try:
        if len(head) < LENGTH_BYTES or len(streams) != 3:
            raise ValueError("no request")
        wanted, content = int.from_bytes(head, "little"), b""
        while len(content) < wanted:
            if not (part := client.recv(wanted - len(content))):
                raise ValueError("cut off")
            content += part
        given: dict[str, Any] = json.loads(content)
        return ForkRequest(given["env"], given["folder"], tuple(streams))
    except (OSError, ValueError, KeyError):
        for stream in streams:
            os.close(stream)
        return None


def _become_a_trial(server: int) -> None:
    """In a fork: a group of its own, like a trial that an agent starts; signals as usual; dead when the server is."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it was too late
        os._exit(1)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_STOP)


def stamps(known: Mapping[str, int] | None = None) -> dict[str, int]:
    """When each file that was loaded as a module (or those `known`) was last changed, in nanoseconds; 0 if gone."""
    # Some entries are no modules, and some modules make up what is asked of them.
    named = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    files = known or [file for file in named if isinstance(file, str)]
    return {file: _changed(file) for file in files}


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0
