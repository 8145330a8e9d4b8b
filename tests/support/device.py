"""A device elsewhere: its queue on a hub, its host's `wandb agent` without torch, and a process that asks it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from prunefleet.agent.measure.export import export

from support.hub import HubProcess
from support.paths import ROOT

SHAPE = (1, 1, 8, 8)
BLOCKED = ("torch", "torchvision", "torch_pruning", "nncf")
BRIEF = {"time_limit_s": 0.5, "throughput_s": 0.05, "loads": 1}
"""How long devices measure where a test does not say: what is timed differs by a factor of ten."""
HOST, CLOCK = "TEST_HOST", "TEST_CLOCK_HOURS"
"""Variables by which an edge host's processes take another name for their host's, and another time for now."""
NO_TORCH = f"""
import os, platform, socket, sys, time

if hours := float(os.environ.get({CLOCK!r}, 0)):
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + 3600 * hours
    time.time_ns = lambda: right_ns() + int(3600e9 * hours)
if host := os.environ.get({HOST!r}):
    socket.gethostname = platform.node = lambda: host

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
ASK = """
import json, sys
from pathlib import Path
from prunefleet.agent.tracking import tracked_run as report
from prunefleet.agent.measure.benchmark import MeasurementSetup
from prunefleet.agent.measure.remote.elsewhere import Elsewhere
from prunefleet.agent.measure.exported import sized
from prunefleet.agent.measure.remote.choice import queue_of
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.host.stop import StopSignal
from prunefleet.objective.trial import TrialFailed
folder, device, more = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
try:
    with report.own_run(StopSignal(), "test") as session:
        there = Elsewhere(queue_of(session.project, device), session)
        said = there.describe(device, RemoteRunner())
        half, dense = (sized(folder / f"{name}.xml", "f32", (1, 1, 8, 8)) for name in ("half", "dense"))
        seeds = more.pop("seeds", [0])
        hosts = []
        for seed in seeds:
            timed = there({"half": half}, dense, MeasurementSetup(RemoteRunner(), said.device, seed=seed, **more))
            hosts.append(timed.latencies["half"].device.host)
        samples = {name: len(slots) for name, slots in timed.slots.items()}
        print(json.dumps({"latency": timed.latencies["half"].to_json(), "samples": samples, "hosts": hosts}))
except TrialFailed as error:
    print(json.dumps({"failed": error.failure.to_json()}))
"""


class Devices:
    """Devices of the project `lab` on a hub."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub, self.tmp = hub, hub.folder / "edge-tmp"
        self.tmp.mkdir()
        (hub.folder / "sitecustomize.py").write_text(NO_TORCH)
        self.env = {"PYTHONPATH": path(ROOT), "OMP_NUM_THREADS": "1", "WANDB_PROJECT": "lab", "TMPDIR": str(self.tmp)}
        two_networks(hub.folder)

    def add(self, name: str) -> str:
        """`prunefleet device add NAME`: what it prints, without the command's name before the sweep."""
        line = self.hub.run(sys.executable, "-m", "prunefleet.infra.cli", "device", "add", name, **self.env)
        return line.split()[-1]

    def agent(self, sweep: str, host: str = "", **env: str) -> "subprocess.Popen[str]":
        """The edge host's `wandb agent`, in a Python that cannot import torch; a `host` has all that is its own."""
        own = self.hub.folder / host
        blocked = {**self.env, "PYTHONPATH": path(self.hub.folder, ROOT), "PRUNEFLEET_CACHE": str(own / "c")}
        if host:
            (own / "tmp").mkdir(parents=True, exist_ok=True)
            blocked |= {HOST: host, "WANDB_HOST": host, "WANDB_DIR": str(own), "TMPDIR": str(own / "tmp")}
        return self.hub.popen(sys.executable, "-m", "wandb", "agent", sweep, **{**blocked, **env})

    def asking(self, device: str, minutes: float = 2, **more: Any) -> "subprocess.Popen[str]":
        """A process that has two networks measured there."""
        (self.hub.folder / "ask.py").write_text(ASK)
        argv = [sys.executable, "ask.py", str(self.hub.folder), device, json.dumps(BRIEF | more)]
        return self.hub.popen(*argv, **self.env, PRUNEFLEET_DEVICE_MINUTES=str(minutes))

    def ask(self, device: str, minutes: float = 2, **more: Any) -> dict[str, Any]:
        """What that process says in the end."""
        return told(self.asking(device, minutes, **more))

    def runs(self, sweep: str) -> list[dict[str, Any]]:
        """The runs of a device's queue, oldest first, their configurations and summaries as plain values."""
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
            runs(order: "+created_at") { edges { node { name state config summaryMetrics } } } } } }"""
        found = self.hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["runs"]["edges"]
        nodes = [edge["node"] for edge in found]
        return [node | {"summary": json.loads(node["summaryMetrics"] or "{}")} for node in nodes]


def two_networks(folder: Path) -> None:
    """A network as `dense.xml`, and one much faster as `half.xml`."""
    for name, width in (("dense", 64), ("half", 16)):
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3)
        export(torch.nn.Sequential(*layers), torch.zeros(SHAPE), folder, name=name)


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The JSON line that a process printed last."""
    output, _ = process.communicate(timeout=150)
    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert process.returncode == 0 and lines, output
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def path(*folders: Path) -> str:
    """A PYTHONPATH that begins with these folders; an empty entry would be the folder that a process runs in."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))
