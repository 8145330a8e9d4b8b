"""A trial as a fork of a process that has torch loaded: what `wandb agent` starts is then only its stand-in.

The stand-in passes on signals, and ends as the trial ends. It imports nothing that takes time. Wherever anything is
off, it stands back and the trial is run in this process, as without a fork server.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from prunefleet.agent.measure import lock
from prunefleet.objective.errors import BadInput
from prunefleet.objective.processes import python_module

SWITCH = "PRUNEFLEET_FORK"
OF_ONE_TRIAL = ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
"""What an agent's trials may differ in; the rest of their environment is read when libraries are loaded."""
LENGTH_BYTES = 4
START_S, ANSWER_S = 120.0, 30.0
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def trial() -> int | None:
    """Have the trial run by a fork of this agent's server; its exit code, or None where that cannot be done.

    Why it cannot is one line. Ends this process by the signal that ended the trial, if one did.
    """
    if not possible():
        return None
    try:
        with _server(os.getppid()) as server:
            child = _asked(server)
            ended = _waited(server, child)
    except (OSError, ValueError, BadInput) as error:
        print(f"not forked, so this trial loads torch itself: {' '.join(str(error).split())}", file=sys.stderr)
        return None
    return ended if ended >= 0 else _die(-ended)


def possible() -> bool:
    """Whether a `wandb agent` started this process, on Linux, and nobody switched the server off."""
    by_agent = all(name in os.environ for name in OF_ONE_TRIAL)
    return by_agent and hasattr(os, "pidfd_open") and os.environ.get(SWITCH) != "0"


@contextlib.contextmanager
def _server(agent: int) -> Iterator[socket.socket]:
    """A connection to the agent's fork server, which is started where there is none."""
    folder, name = lock.folder(), f"fork-{agent}-{started(agent)}"
    with socket.socket(socket.AF_UNIX) as connection:
        with opened(folder) as descriptor:
            try:
                connection.connect(address(descriptor, name))
            except (FileNotFoundError, ConnectionRefusedError):
                _start(folder, name, agent)
                connection.connect(address(descriptor, name))
        yield connection


def started(pid: int) -> str:
    """When a process began, in ticks since the host did (proc(5), stat): with its id, its only name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def address(folder: int, name: str) -> str:
    """Where a socket in an open folder is: short enough for a socket's address, however deep the folder lies."""
    return f"/proc/self/fd/{folder}/{name}"


def _start(folder: Path, name: str, agent: int) -> None:
    """Start the server and wait until it has loaded what trials need. Raises `OSError` where it does not."""
    (folder / name).unlink(missing_ok=True)  # of one that was killed
    ready, told = os.pipe()
    try:
        subprocess.Popen(
            python_module("prunefleet.agent", "fork-server", str(folder / name), str(agent), str(told)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[told],
            process_group=0,  # in the agent's session, but not ended with its first trial
        )
        os.close(told)
        if not select.select([ready], [], [], START_S)[0] or not os.read(ready, 1):
            raise OSError("the fork server did not start")
    finally:
        os.close(ready)


def _asked(server: socket.socket) -> int:
    """Hand over environment, folder and standard streams; returns a descriptor of the trial's process.

    Raises `OSError` where the server refuses.
    """
    server.settimeout(ANSWER_S)
    request = json.dumps({"env": dict(os.environ), "folder": str(Path.cwd())}).encode()
    socket.send_fds(server, [len(request).to_bytes(LENGTH_BYTES, "little")], [0, 1, 2])
    server.sendall(request)
    _, found, _, _ = socket.recv_fds(server, 1, 1)
    if not found:
        raise OSError("the fork server refuses")
    server.settimeout(None)
    return found[0]


def _waited(server: socket.socket, child: int) -> int:
    """The trial's exit code, negative for a signal; signals to this process go to the trial meanwhile.

    Should this process be killed, the server hears its connection end and kills the trial.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    try:
        status = server.recv(LENGTH_BYTES)
    except OSError:
        status = b""
    if len(status) < LENGTH_BYTES:  # the server was killed, and the trial with it
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(int.from_bytes(status, "little"))


def _die(number: int) -> int:
    """End by that signal, without a second core; returns what a shell would call it, should it not end us."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # SIGKILL has its effect without
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
