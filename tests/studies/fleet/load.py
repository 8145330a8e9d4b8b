"""Simulated agents whose trials sleep, on the hub's real wire, in a process of their own: `… fleet_load.py PLAN`.

An agent does as `wandb agent` does: it beats, and what it is given it starts at once and lists until it has ended; 5 s
after each answer it beats again. A trial sends what a trial of this project sends, over connections of its own: it
opens its run, asks for the best score so far, logs rows, uploads the files that the client adds, publishes a candidate
as an artifact and ends its run. Between, it sleeps.
"""

import asyncio
import base64
import hashlib
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studies.hub.load import CREATE_AGENT, HEARTBEAT, UPSERT, Connection, row

BEAT_S = 5.0
TRIALS = 6  # of each agent
SHORTEST_S = 15.0  # a trial's own length; the longest is one beat longer, so that ends fall anywhere between two
SPREAD_S = SHORTEST_S + BEAT_S  # over which agents begin, a trial with its beat: as in a fleet that was at work before
ROW_S = 1.0
STREAM_S = 5.0
FILES = {"config.yaml": 2_000, "output.log": 4_000, "wandb-metadata.json": 1_500, "requirements.txt": 3_000}
CANDIDATE = {"model.safetensors": 60_000, "model.xml": 20_000, "model.bin": 60_000, "samples.json.gz": 10_000}
INCUMBENT = """query Runs($project: String!, $entity: String!, $filters: JSONString, $order: String) {
  project(name: $project, entityName: $entity) { runCount(filters: $filters)
    runs(filters: $filters, first: 1, order: $order) { edges { node { id name state summaryMetrics } } } } }"""
RUN_FILES = """mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) {
  createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) {
    runID files { name uploadUrl } } }"""
CREATE = """mutation CreateArtifact($input: CreateArtifactInput!) {
  createArtifact(input: $input) { artifact { id state } } }"""
MANIFEST = """mutation CreateArtifactManifest($input: CreateArtifactManifestInput!) {
  createArtifactManifest(input: $input) { artifactManifest { id file { uploadUrl } } } }"""
ARTIFACT_FILES = """mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) { files { edges { node { name uploadUrl } } } } }"""
COMMIT = """mutation CommitArtifact($id: ID!) { commitArtifact(input: {artifactID: $id}) { artifact { id state } } }"""


@dataclass(frozen=True)
class Plan:
    """How many agents on which sweep, with `trials` each."""

    url: str
    authorization: str
    entity: str
    project: str
    sweep: str
    agents: int
    trials: int = TRIALS
    seed: int = 0


@dataclass
class Found:
    """Milliseconds of heartbeats and posts; seconds from an agent's first ask for work to when it would ask
    for more than its trials."""

    beats: list[float] = field(default_factory=list)
    posts: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    asked: int = 0
    given: int = 0
    ended: int = 0
    lag_ms: float = 0.0
    cpu_s: float = 0.0
    seconds: float = 0.0


def lengths(agent: int, trials: int) -> list[float]:
    """How long each trial of an agent sleeps: the same for all but for less than a step, so that they drift apart."""
    step = BEAT_S / trials
    shift = random.Random(agent).uniform(0, step) if agent else step / 2
    found = [SHORTEST_S + shift + step * number for number in range(trials)]
    random.Random(-agent).shuffle(found)
    return found


class Work:
    """All agents until each has done its trials."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.found = plan, Found()
        self._who = {"entity": plan.entity, "project": plan.project}
        self._done = asyncio.Event()

    async def run(self) -> Found:
        """Begin one after the other, work, and tell."""
        watch = asyncio.create_task(self._watch_self())
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self.plan.agents):
                group.create_task(self._agent(number))
        self.found.seconds = time.monotonic() - began
        self._done.set()
        await watch
        return self.found

    async def _watch_self(self) -> None:
        """How late this process itself is: what it adds to every latency."""
        began, lags = time.process_time(), [0.0]
        while not self._done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.05)
            lags.append(1e3 * (time.perf_counter() - before) - 50)
        self.found.lag_ms = sorted(lags)[int(0.99 * (len(lags) - 1))]
        self.found.cpu_s = time.process_time() - began

    async def _agent(self, number: int) -> None:
        plan = self.plan
        await asyncio.sleep(SPREAD_S * number / plan.agents)
        wire = Connection(plan.url, plan.authorization)
        names = {"entityName": plan.entity, "projectName": plan.project, "sweep": plan.sweep, "host": f"host{number}"}
        agent = (await _ask(wire, CREATE_AGENT, **names))[0]["createAgent"]["agent"]["id"]
        trial: asyncio.Task[None] | None = None
        name, began, left = "", time.monotonic(), lengths(number, plan.trials)
        while left or trial is not None:
            if trial is not None and trial.done():
                trial = trial.result()
                if not left:
                    break
            command = await self._beat(wire, agent, {name: True} if trial is not None else {})
            if command is not None and trial is None:
                name = command["run_id"]
                trial = asyncio.create_task(self._trial(command, left.pop()))
            await asyncio.sleep(BEAT_S)
        self.found.turns.append(round(time.monotonic() - began, 3))
        wire.close()

    async def _beat(self, wire: Connection, agent: str, listed: dict[str, bool]) -> dict[str, Any] | None:
        told, took = await _ask(wire, HEARTBEAT, id=agent, metrics="{}", runState=json.dumps(listed))
        commands = json.loads(told["agentHeartbeat"]["commands"])
        self.found.beats.append(round(took, 2))
        self.found.asked += not listed
        self.found.given += not listed and bool(commands)
        return commands[0] if commands else None

    async def _trial(self, command: dict[str, Any], seconds: float) -> None:
        """A run from `wandb.init` to its end, which sleeps so long on the way; what it sends comes on top."""
        plan, run = self.plan, command["run_id"]
        api, stream = (Connection(plan.url, plan.authorization) for _ in range(2))
        config = json.dumps({**command["args"], "_wandb": {"value": {"t": {"4": "3.11", "5": "0.31.0"}}}})
        about = {**self._who, "name": run, "config": config}
        await _ask(api, UPSERT, **about, host="host", program="prunefleet", sweep=plan.sweep)
        await self._stream(stream, run, {"files": {}})
        await _ask(api, UPSERT, **about)
        filters = json.dumps({"sweep": plan.sweep, "summary_metrics.outcome": "scored"})
        await _ask(api, INCUMBENT, **self._who, filters=filters, order="-summary_metrics.score")
        rows = 0
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(STREAM_S, left))
            fresh = range(rows, rows + max(1, round(min(STREAM_S, left) / ROW_S)))
            rows = fresh.stop
            await self._stream(stream, run, {"files": _rows(fresh)})
        await self._publish(api, run)
        await self._upload(api, run)
        await _ask(api, UPSERT, **about)
        summary = json.dumps({**row(rows), "outcome": "scored", "score": rows / (rows + 1)})
        last = {"wandb-summary.json": {"offset": 0, "content": [summary]}}
        await self._stream(stream, run, {"complete": True, "exitcode": 0, "files": last})
        self.found.ended += 1
        for each in (api, stream):
            each.close()

    async def _upload(self, wire: Connection, run: str) -> None:
        """The files that the client adds to a run."""
        answer = (await _ask(wire, RUN_FILES, **self._who, run=run, files=list(FILES)))[0]["createRunFiles"]["files"]
        for file in answer:
            await wire.put(file["uploadUrl"], _content(run, file["name"], FILES[file["name"]]))

    async def _publish(self, wire: Connection, run: str) -> None:
        """The candidate, as the client logs an artifact."""
        contents = {name: _content(run, name, size) for name, size in CANDIDATE.items()}
        listed = {name: {"digest": _md5(content), "size": len(content)} for name, content in contents.items()}
        policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
        manifest = json.dumps({"version": 1, **policy, "contents": listed}).encode()
        place = {"entityName": self.plan.entity, "projectName": self.plan.project, "runName": run}
        given = {**place, "artifactTypeName": "candidate", "artifactCollectionName": f"candidate-{run}"}
        made = await _ask(wire, CREATE, input={**given, "digest": hashlib.md5(manifest).hexdigest()})
        artifact = made[0]["createArtifact"]["artifact"]["id"]
        files = [{"artifactID": artifact, "name": name, "md5": each["digest"]} for name, each in listed.items()]
        answer = await _ask(wire, ARTIFACT_FILES, input={"artifactFiles": files, "storageLayout": "V2"})
        for edge in answer[0]["createArtifactFiles"]["files"]["edges"]:
            if edge["node"]["uploadUrl"]:
                await wire.put(edge["node"]["uploadUrl"], contents[edge["node"]["name"]])
        about = {"artifactID": artifact, "name": "wandb_manifest.json", "digest": _md5(manifest), "type": "FULL"}
        opened = (await _ask(wire, MANIFEST, input={**place, **about}))[0]["createArtifactManifest"]
        await wire.put(opened["artifactManifest"]["file"]["uploadUrl"], manifest)
        await _ask(wire, COMMIT, id=artifact)

    async def _stream(self, wire: Connection, run: str, body: dict[str, Any]) -> None:
        path = f"/files/{self.plan.entity}/{self.plan.project}/{run}/file_stream"
        self.found.posts.append(round((await wire.post(path, body))[1], 2))


async def _ask(wire: Connection, query: str, **variables: Any) -> tuple[Any, float]:
    answer, took = await wire.post("/graphql", {"query": query, "variables": variables})
    return answer["data"], took


def _rows(numbers: range) -> dict[str, Any]:
    rows = [json.dumps(row(number)) for number in numbers]
    return {
        "wandb-history.jsonl": {"offset": numbers.start, "content": rows},
        "wandb-summary.json": {"offset": 0, "content": rows[-1:]},
    }


def _content(run: str, name: str, size: int) -> bytes:
    """Bytes that no other run has under that name: nothing is spared an upload."""
    return random.Random(f"{run}/{name}").randbytes(size)


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def main() -> int:
    """Do the work that the file describes and print what was found as JSON."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(asdict(asyncio.run(Work(plan).run()))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
