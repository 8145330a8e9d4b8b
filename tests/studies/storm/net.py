"""Machines of a fleet on this one: a network namespace each, on one switch, with links that can be cut and slowed."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunefleet.infra.fleet.supervision.process import dies_with_us

from support.hosts import Host, run

PREFIX = "10.231.251"
SLOW = ("tbf", "rate", "1mbit", "burst", "16kbit", "latency", "500ms")
LINK, BRIDGE = "lan0", "br0"


@dataclass
class Machine:
    """A host with a link of its own to the switch; `address` is its own."""

    name: str
    address: str
    home: Path
    switch: str
    port: str
    """The switch's end of its link."""
    env: dict[str, str] = field(default_factory=dict)
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def host(self) -> Host:
        """It as other tests know a host in a namespace."""
        return Host(self.name, self.address, self.home)

    def _line(self, line: str) -> str:
        told = " ".join(f"{name}='{value}'" for name, value in self.env.items())
        return f"export {told}; {line}"

    def start(self, line: str, log: str) -> "subprocess.Popen[bytes]":
        """Start a shell line there, its output behind what is in the log of that name."""
        with (self.home / log).open("ab") as out:
            command = dies_with_us(self.host.command(self._line(f"exec {line}")))
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.started.append(process)
        return process

    def say(self, line: str) -> str:
        """What a shell line there says."""
        return run(*self.host.command(self._line(line)), timeout=120)

    def processes(self) -> dict[int, str]:
        """Process ids there, and their command lines."""
        found = {}
        for pid in map(int, run("ip", "netns", "pids", self.name).split()):
            with contextlib.suppress(OSError):
                if line := Path(f"/proc/{pid}/cmdline").read_bytes():
                    found[pid] = line.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def signal(self, number: signal.Signals, pids: Sequence[int] | None = None) -> None:
        """Signal these processes of it, or all."""
        for pid in self.processes() if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_all(self) -> None:
        """End all that runs there, as a power cut would."""
        while self.processes():
            self.signal(signal.SIGKILL)
            for process in self.started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        self.started = [process for process in self.started if process.poll() is None]

    def cut(self) -> None:
        """Let nothing through: the switch drops it, and neither end is told."""
        run("ip", "-n", self.switch, "link", "set", self.port, "nomaster")

    def join(self) -> None:
        """Let everything through again."""
        run("ip", "-n", self.switch, "link", "set", self.port, "master", BRIDGE)

    def slow(self, on: bool) -> None:
        """Let through a megabit a second, or as much as there is."""
        for name, link in ((self.switch, self.port), (self.name, LINK)):
            words = ("replace", "dev", link, "root", *SLOW) if on else ("delete", "dev", link, "root")
            run("tc", "-n", name, "qdisc", *words)


@contextlib.contextmanager
def machines(folder: Path, names: Sequence[str]) -> Iterator[list[Machine]]:
    """Machines of these names on a switch that nothing else is on; they and all that runs there end with the block."""
    mark = str(os.getpid())
    switch = f"switch-{mark}"
    made: list[Machine] = []
    _ip("netns", "add", switch)
    try:
        _ip("-n", switch, "link", "add", BRIDGE, "type", "bridge")
        _ip("-n", switch, "link", "set", BRIDGE, "up")
        for number, label in enumerate(names, start=1):
            made.append(_machine(folder / label, f"{label}-{mark}", number, switch))
        yield made
    finally:
        for machine in made:
            machine.kill_all()
        for name in (*(machine.name for machine in made), switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _machine(home: Path, name: str, number: int, switch: str) -> Machine:
    home.mkdir(parents=True)
    (home / "tmp").mkdir()
    port = f"port{number}"
    _ip("netns", "add", name)
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", LINK, "netns", name)
    _ip("-n", switch, "link", "set", port, "master", BRIDGE, "up")
    _ip("-n", name, "address", "add", f"{PREFIX}.{number}/24", "dev", LINK)
    _ip("-n", name, "link", "set", LINK, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return Machine(name, f"{PREFIX}.{number}", home, switch, port)


def _ip(*words: str) -> None:
    run("ip", *words)
