"""What tells an agent that is never heard any more, against the real client and the process that it speaks through."""

import subprocess
import sys
from pathlib import Path

import pytest

from prunefleet.infra.fleet.supervision.process import is_deaf

from support.hub import HubProcess
from support.wait import wait_for

HANGS_UP = """
import contextlib, os, socket, wandb
api = wandb.Api()
print("connected", flush=True)
input()
for number in map(int, os.listdir("/proc/self/fd")):
    with contextlib.suppress(OSError):
        each = socket.socket(fileno=os.dup(number))
        if each.family == socket.AF_UNIX and each.getpeername():
            each.shutdown(socket.SHUT_RDWR)
print("hung up", flush=True)
input()
"""


@pytest.mark.timeout(120)
def test_a_client_that_hung_up_is_deaf(tmp_path: Path) -> None:
    """Not while it is connected to its own process; that one stays on without it."""
    with HubProcess(tmp_path) as hub:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        argv = [sys.executable, "-c", HANGS_UP]
        with subprocess.Popen(argv, env=hub.env(), text=True, **pipes) as agent:
            assert agent.stdin and agent.stdout
            try:
                assert agent.stdout.readline() == "connected\n"
                assert not is_deaf(agent.pid)
                agent.stdin.write("\n")
                agent.stdin.flush()
                assert agent.stdout.readline() == "hung up\n"
                wait_for(lambda: is_deaf(agent.pid), 60)
            finally:
                agent.kill()
