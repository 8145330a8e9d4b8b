"""A fleet of six machines: a hub, two that prune and train, three that only measure, two of these of one kind."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prunefleet.infra.hub.store.integrity import opened

from studies.storm.net import Machine, machines
from support.hosts import build_wheel, environment_from
from support.paths import TESTS
from support.wait import wait_for

PORT = 8765
DEVICES = {"edge1": "board-a", "edge2": "board-a", "edge3": "board-b"}
TRIALS = ("trial1", "trial2")
RATIO = {"values": [0.0, 0.25, 0.5, 0.75]}
SWEEP: dict[str, Any] = {
    "name": "storm",
    "program": "prunefleet",
    "command": ["${env}", "prunefleet", "trial"],
    "method": "random",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {
        "task": {"value": "tiny_task:TinyTask"},
        "objective": {
            "parameters": {"kind": {"value": "fastest"}, "metric": {"value": "top1"}, "max_drop": {"value": 0.5}}
        },
        "measure": {"parameters": {"device": {"value": ["board-a", "board-b"]}, "precision": {"value": "f32"}}},
        # Trials prune the channels of a seed of their own: what was measured before would be answered at once.
        "recipe": {
            "parameters": {
                "epochs": {"value": 1},
                "skip": {"value": False},
                "importance": {"value": "random"},
                "seed": {"min": 0, "max": 10**6},
            }
        },
        "ratio": {"parameters": {f"conv{number}": RATIO for number in (1, 2, 3)}},
    },
}


@dataclass
class Fleet:
    """The machines by their label, and what runs on them."""

    folder: Path
    machines: dict[str, Machine]
    queues: dict[str, str]
    """Each machine's sweep, as `wandb agent` is given it."""

    @property
    def hub(self) -> Machine:
        """The machine of the hub."""
        return self.machines["hub"]

    @property
    def data(self) -> Path:
        """The hub's data folder, which this process reads beside it."""
        return self.hub.home / "hub"

    def start_hub(self, wait: bool = True) -> None:
        """Start the hub, as after a boot of its machine."""
        ready = self.hub.home / "ready.json"
        ready.unlink(missing_ok=True)
        words = f"--data {self.data} --host {self.hub.address} --port {PORT} --ready-file {ready}"
        self.hub.start(f"prunefleet hub {words}", "hub.log")
        if wait:
            wait_for(ready.exists, 60)

    def start(self, label: str) -> None:
        """Start a machine's supervised agent, as after a boot."""
        machine = self.machines[label]
        keep = TESTS / "studies" / "storm" / "keep.py"
        machine.start(f"python {keep} {machine.home} {self.queues[label]}", "keeper.log")

    def sweep(self, trials: int) -> str:
        """A sweep of that many trials, made on a machine that trains; its path."""
        machine = self.machines[TRIALS[0]]
        (machine.home / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "run_cap": trials}))
        said = machine.say("WANDB_SILENT=false wandb sweep --project lab sweep.yaml 2>&1")
        return "local/lab/" + said.split("wandb agent local/lab/")[1].split()[0]

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """What the hub has on its disk now."""
        with opened(self.data) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    def logs(self) -> str:
        """The end of every log, for the message of a failure."""
        told = []
        for label, machine in self.machines.items():
            for log in sorted(machine.home.glob("*.log")):
                told.append(f"--- {label} {log.name}\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(told)


@contextlib.contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """The fleet, its hub started and its devices known; agents are started by the caller."""
    (folder / "wheel").mkdir()
    wheel = build_wheel(folder / "wheel")
    with ThreadPoolExecutor() as pool:
        made = {kind: pool.submit(environment_from, wheel, folder / kind) for kind in ("edge", "train")}
        environments = {kind: future.result() for kind, future in made.items()}
    (folder / "blocked").mkdir()
    shutil.copy(TESTS / "studies" / "storm" / "edge.py", folder / "blocked" / "sitecustomize.py")
    (folder / "task").mkdir()
    shutil.copy(TESTS / "tiny_task.py", folder / "task")
    with machines(folder / "machines", ("hub", *TRIALS, *DEVICES)) as every:
        by_label = dict(zip(("hub", *TRIALS, *DEVICES), every, strict=True))
        found = Fleet(folder, by_label, {})
        for label, machine in by_label.items():
            own = environments["edge" if label in DEVICES else "train"]
            machine.env = environment(machine, own, folder / ("blocked" if label in DEVICES else "task"))
        found.start_hub()
        key = json.loads((found.hub.home / "ready.json").read_text())["api_key"]
        for machine in every:
            machine.env |= {"WANDB_BASE_URL": f"http://{found.hub.address}:{PORT}", "WANDB_API_KEY": key}
        for device in dict.fromkeys(DEVICES.values()):
            line = found.machines[TRIALS[0]].say(f"prunefleet device add {device}")
            found.queues |= {label: line.split()[-1] for label, name in DEVICES.items() if name == device}
        yield found


def environment(machine: Machine, own: Path, path: Path) -> dict[str, str]:
    """A user's environment on a machine."""
    return {
        "PATH": f"{own}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(path),
        "TMPDIR": str(machine.home / "tmp"),
        "PRUNEFLEET_CACHE": str(machine.home / "cache"),
        "WANDB_PROJECT": "lab",
        "WANDB_DIR": str(machine.home),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
