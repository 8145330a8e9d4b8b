"""A hub for the pages to show: trials come and end through the hub's own calls, as agents and clients make them."""

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from prunefleet.infra.controller.contract import Suggestion
from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.file_rows import FileOwner
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import RunRow, SweepRow, SweepState, UserRow
from prunefleet.infra.server import create_app

from support.dashboard import GENERIC_YAML, SWEEP_YAML, trial_row
from support.wait import wait_for

KEPT = ((32, 64, 128), (16, 32, 64), (16, 16, 32), (16, 48, 64), (16, 32, 48), (32, 16, 48))
ACCURACY = (0.930, 0.926, 0.900, 0.925, 0.924, 0.905)
RATIO = (1.0, 0.45, 0.20, 0.50, 0.38, 0.30)
WHY = ("warm", "warm", "warm", "warm", "exploit", "explore")


class Script:
    """A controller that suggests what it was told."""

    def __init__(self) -> None:
        self.ready: deque[Suggestion] = deque()
        self.advised = Advice()
        self.said = 0

    def take(self, sweep_id: int) -> Suggestion | None:
        return self.ready.popleft() if self.ready else None

    def poke(self, sweep_id: int) -> None:
        pass

    def advice(self, sweep_id: int) -> Advice:
        return self.advised


class Scene:
    """A hub with one user, and the moves of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.script = Script()
        self.store = Store(folder)
        self.hub = Hub(self.store, self.script)
        key = self.hub.auth.ensure_first_user()
        assert key is not None
        self.key = key
        user = self.hub.auth.user_of(key)
        assert user is not None
        self.user: UserRow = user

    def sweep(self, text: str = SWEEP_YAML) -> SweepRow:
        """A new sweep of that file."""
        change = SweepChange(entity=self.user.username, project="demo", config_yaml=text)
        return self.hub.create_sweep(self.user, change)

    def agent(self, sweep: SweepRow, host: str = "workbench") -> int:
        """A new agent of the sweep; its id."""
        return self.hub.register_agent(self.user, sweep.entity, sweep.project, sweep.name, host).id

    def start(self, agent: int, proposed: dict[str, Any], why: dict[str, Any], **said: Any) -> RunRow:
        """The agent asks for work, is given it, and the run starts; `said` is what `wandb.init` tells."""
        self.script.ready.append(Suggestion({}, proposed, why))
        command = self.hub.heartbeat(agent, [])
        assert command is not None
        name = command["run_id"]
        wrapped = {key: {"value": value} for key, value in {**proposed, **said.pop("config", {})}.items()}
        change = RunChange(self.user.username, "demo", name, config=wrapped, host="workbench", **said)
        run, _ = self.hub.begin_run(self.user, change)
        self.hub.heartbeat(agent, [name])
        return run

    def log(
        self, run: RunRow, summary: dict[str, Any], *, ends: bool = True, lines: Sequence[dict[str, Any]] = ()
    ) -> RunRow:
        """What the run's stream says, and its end."""
        history = [json.dumps(line) for line in lines]
        console = [f"rung {index}: <b>loss</b> 0.{index}" for index in range(len(lines))]
        posted = {Stream.HISTORY: (0, history), Stream.CONSOLE: (0, console)}
        post = StreamPost(posted, summary=summary, complete=ends)
        return self.hub.stream(run.entity, run.project, run.name, post)

    def trial(self, agent: int, index: int, **said: Any) -> RunRow:
        """One trial of the pruning sweep from start to end."""
        row = trial_row(index, KEPT[index], ACCURACY[index], RATIO[index], WHY[index])
        config, extra = {"ratio": row.config["ratio"]}, {key: row.config[key] for key in ("kept", "device")}
        run = self.start(agent, config, dict(row.why or {}), config=extra, **said)
        rungs = [{"_step": step, "val_top1": 0.9 + step / 100, "loss": 1 / (step + 1)} for step in range(4)]
        ended = self.log(run, dict(row.summary), lines=rungs)
        self.hub.heartbeat(agent, [])
        return ended

    def save(self, run: RunRow, name: str, content: bytes) -> None:
        """A file of the run."""
        self.hub.files.keep(FileOwner.RUN, run.id, name, self.hub.files.blobs.put([content]))

    def publish(self, run: RunRow, name: str) -> None:
        """An artifact without files that the run logs."""
        new = NewArtifact(run.entity, run.project, name, "candidate", digest=name, run=run.name)
        artifact = self.hub.artifacts.create(self.user, new)
        self.hub.artifacts.expect_manifest(artifact.id, "FULL", "", None)
        manifest = {"version": 1, "storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {}, "contents": {}}
        blob = self.hub.files.blobs.put([json.dumps(manifest).encode()])
        self.hub.files.keep(FileOwner.MANIFEST, artifact.id, "wandb_manifest.json", blob)
        self.hub.artifacts.commit(artifact.id)

    def answer(self, sweep: SweepRow, winner: RunRow) -> None:
        """What the answer leaves: the winner's test metric and a run for each control."""
        summary = {**winner.summary, "test_top1": 0.921}
        self.hub.revise_run(winner.id, RunChange(summary=summary))
        for name in ("dense", "dense_default", "uniform"):
            identity = f"{sweep.name}-{name}".replace("_", "-")
            change = RunChange(
                self.user.username, "demo", identity, display_name=name, group=sweep.name, job_type="control"
            )
            run, _ = self.hub.begin_run(self.user, change)
            self.log(run, {"test_top1": 0.93, "latency_ratio": 0.4, "latency_p10_ms": 0.8})

    def demo(self, count: int = len(KEPT)) -> tuple[SweepRow, int]:
        """A pruning sweep with that many trials ended; the sweep and its agent."""
        sweep = self.sweep()
        agent = self.agent(sweep)
        for index in range(count):
            self.trial(agent, index)
        return sweep, agent

    def generic(self, losses: Sequence[float]) -> SweepRow:
        """A finished sweep that does not prune."""
        sweep = self.sweep(GENERIC_YAML)
        agent = self.agent(sweep)
        for index, loss in enumerate(losses, start=1):
            self.log(
                self.start(agent, {"lr": index / 100, "optimizer": "sgd", "depth": 3}, {"kind": "random"}),
                {"loss": loss},
            )
            self.hub.heartbeat(agent, [])
        return self.hub.revise_sweep(sweep.id, SweepChange(state=SweepState.FINISHED))

    def address(self, sweep: SweepRow) -> str:
        """The path of a sweep's page."""
        return f"/{sweep.entity}/{sweep.project}/sweeps/{sweep.name}"


@contextmanager
def served(scene: Scene) -> Iterator[str]:
    """The scene's hub on a free port of 127.0.0.1; their base address."""
    app = create_app(scene.hub, "admin-token")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
