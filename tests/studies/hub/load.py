"""Simulated agents and runs on the hub's real wire, in a process of their own: `python studies.hub.load.py PLAN.json`.

Each agent beats every 5 s over one kept connection with the client's own operation, starts what it is given with
`UpsertBucket`, and streams through `file_stream` as the client does. Agents that log send the rows of 15 s in one
message and end their runs after a while; the others hold one long run that only gives a sign of life every 30 s.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEARTBEAT = """
    mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
        agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
    }
"""
CREATE_AGENT = """
    mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
        createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) {
            agent { id } } }
"""
UPSERT = """
mutation UpsertBucket ($id: String, $name: String, $project: String, $entity: String, $config: JSONString,
    $host: String, $program: String, $sweep: String) {
  upsertBucket(input: {id: $id, name: $name, modelName: $project, entityName: $entity, config: $config, host: $host,
      jobProgram: $program, sweep: $sweep}) {
    bucket { id name displayName description config sweepName project { id name entity { id name } } historyLineCount }
    inserted } }
"""
BEAT_S, STREAM_S, LIFE_S = 5.0, 15.0, 30.0
METRICS = ("loss", "val_loss", "accuracy", "val_accuracy", "lr", "epoch")


@dataclass(frozen=True)
class Plan:
    """What load to make. Seconds; `rows_s` rows of history a second and run; runs that log last `least` to `most`."""

    url: str
    authorization: str
    entity: str
    project: str
    searched: str  # the sweep of the agents that log
    held: str  # the sweep of those that do not
    agents: int
    logging: int
    seconds: float
    warm_up: float
    least: float
    most: float
    rows_s: float = 1.0
    seed: int = 0


@dataclass
class Found:
    """What was seen while it was counted: latencies in milliseconds, asks for work and how many were answered."""

    beats: list[float] = field(default_factory=list)
    posts: list[float] = field(default_factory=list)
    asked: int = 0
    given: int = 0
    ended: int = 0
    rows: int = 0
    errors: list[str] = field(default_factory=list)
    lag_ms: float = 0.0
    cpu_s: float = 0.0
    began: float = 0.0


class Connection:
    """One kept HTTP/1.1 connection."""

    def __init__(self, url: str, authorization: str) -> None:
        self._host, self._port = url.removeprefix("http://").rsplit(":", 1)
        self._head = f"Host: {self._host}\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: Any) -> tuple[Any, float]:
        """The JSON of the answer and how long it took in milliseconds. Raises `RuntimeError` for any status but 200."""
        told, took = await self._request("POST", path, json.dumps(body).encode())
        return json.loads(told), took

    async def put(self, url: str, content: bytes) -> None:
        """Send a file to a signed address. Raises as `post` does."""
        await self._request("PUT", "/" + url.split("/", 3)[3], content)

    async def _request(self, method: str, path: str, content: bytes) -> tuple[bytes, float]:
        """As the client does, ask again on a new connection where a kept one was closed for being idle."""
        kept = self._writer is not None
        try:
            return await self._exchange(method, path, content)
        except (asyncio.IncompleteReadError, ConnectionError):
            if not kept:
                raise
            self.close()
            self._writer = None
            return await self._exchange(method, path, content)

    async def _exchange(self, method: str, path: str, content: bytes) -> tuple[bytes, float]:
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n".encode()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        assert self._reader is not None
        began = time.perf_counter()
        self._writer.write(head + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        told = await self._reader.readexactly(length)
        took = 1e3 * (time.perf_counter() - began)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {answer[:20]!r} {told[:300]!r}")
        return told, took

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Load:
    """All agents and their runs until the plan's time is over."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found = Found()
        self.random = random.Random(plan.seed)
        self.end = time.monotonic() + plan.warm_up + plan.seconds
        self.counted_from = time.monotonic() + plan.warm_up
        self.seen_rows: dict[str, int] = {}

    @property
    def counts(self) -> bool:
        return time.monotonic() >= self.counted_from

    async def run(self) -> Found:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_self())
            for number in range(self.plan.agents):
                group.create_task(self._agent(number))
        return self.found

    async def _watch_self(self) -> None:
        """How late this process itself is: what it adds to every latency."""
        while not self.counts:
            await asyncio.sleep(0.1)
        began, self.found.began = time.process_time(), time.time()
        lags = []
        while time.monotonic() < self.end:
            before = time.perf_counter()
            await asyncio.sleep(0.05)
            lags.append(1e3 * (time.perf_counter() - before) - 50)
        self.found.lag_ms = sorted(lags)[int(0.99 * len(lags))]
        self.found.cpu_s = time.process_time() - began

    async def _agent(self, number: int) -> None:
        plan, logs = self.plan, number < self.plan.logging
        await asyncio.sleep(BEAT_S * number / plan.agents)
        wire, sweep = Connection(plan.url, plan.authorization), plan.searched if logs else plan.held
        names = {"entityName": plan.entity, "projectName": plan.project, "sweep": sweep, "host": f"host{number}"}
        agent = (await self._ask(wire, CREATE_AGENT, **names))[0]["createAgent"]["agent"]["id"]
        trial: asyncio.Task[None] | None = None
        name = ""
        due = time.monotonic()
        while time.monotonic() < self.end:
            listed = {name: True} if trial is not None and not trial.done() else {}
            command = await self._beat(wire, agent, listed)
            if command is not None and command["type"] in ("run", "resume") and not listed:
                name = command["run_id"]
                trial = asyncio.create_task(self._trial(command, sweep, logs))
            due = max(due + BEAT_S, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if trial is not None:
            trial.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trial
        wire.close()

    async def _beat(self, wire: Connection, agent: str, listed: Mapping[str, bool]) -> dict[str, Any] | None:
        told, took = await self._ask(wire, HEARTBEAT, id=agent, metrics="{}", runState=json.dumps(listed))
        commands = json.loads(told["agentHeartbeat"]["commands"])
        if self.counts:
            self.found.beats.append(round(took, 2))
            self.found.asked += not listed
            self.found.given += not listed and bool(commands)
        return commands[0] if commands else None

    async def _ask(self, wire: Connection, query: str, **variables: Any) -> tuple[Any, float]:
        answer, took = await wire.post("/graphql", {"query": query, "variables": variables})
        return answer["data"], took

    async def _trial(self, command: Mapping[str, Any], sweep: str, logs: bool) -> None:
        """A run from `wandb.init` to its end; one that does not log goes on for ever."""
        plan = self.plan
        wire = Connection(plan.url, plan.authorization)
        name = command["run_id"]
        who = {"entity": plan.entity, "project": plan.project, "name": name}
        config = json.dumps({**command["args"], "_wandb": {"value": {"t": {"4": "3.11", "5": "0.31.0"}}}})
        try:
            await self._ask(wire, UPSERT, **who, config=config, host="host", program="train.py", sweep=sweep)
            if logs:
                await self._log(wire, name, self.random.uniform(plan.least, plan.most))
                await self._ask(wire, UPSERT, **who, config=config)
                last = {"complete": True, "exitcode": 0, **self._rows(name, 0)}
                await self._stream(wire, name, last)
                self.found.ended += self.counts
            while not logs:
                await asyncio.sleep(LIFE_S)
                await self._stream(wire, name, {})
        finally:
            wire.close()

    async def _log(self, wire: Connection, name: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = min(STREAM_S, left)
            await asyncio.sleep(pause)
            await self._stream(wire, name, self._rows(name, max(1, round(pause * self.plan.rows_s))))

    def _rows(self, name: str, count: int) -> dict[str, Any]:
        first = self.seen_rows.get(name, 0)
        self.seen_rows[name] = first + count
        rows = [row(step) for step in range(first, first + count)]
        if self.counts:
            self.found.rows += count
        files: dict[str, Any] = {"wandb-summary.json": {"offset": 0, "content": [json.dumps(row(first + count))]}}
        if rows:
            files["wandb-history.jsonl"] = {"offset": first, "content": [json.dumps(one) for one in rows]}
            system = {"system.cpu": 50.0, "system.memory": 40.0, "_runtime": first, "_timestamp": first}
            files["wandb-events.jsonl"] = {"offset": first // 15, "content": [json.dumps(system)]}
        return {"files": files}

    async def _stream(self, wire: Connection, name: str, body: dict[str, Any]) -> None:
        path = f"/files/{self.plan.entity}/{self.plan.project}/{name}/file_stream"
        _answer, took = await wire.post(path, body)
        if self.counts:
            self.found.posts.append(round(took, 2))


def row(step: int) -> dict[str, Any]:
    """One row of history, as training loops log them."""
    numbers = {name: round(1 / (step + place + 1), 6) for place, name in enumerate(METRICS)}
    return {"_step": step, "_runtime": step * 1.0, "_timestamp": 1_800_000_000.0 + step, **numbers}


def main() -> int:
    """Make the load that the file describes and print what was found as JSON."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(asdict(asyncio.run(Load(plan).run()))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
