"""How long a hub on a large folder takes to start and to answer, and what it holds in memory."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from support_hub import HubProcess, basic

from infra.dashboard.session import COOKIE
from infra.hub.auth import Auth, load_secret

RUNS = """query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String,
                     $filters: JSONString) {
  project(name: $project, entityName: $entity) { internalId runCount(filters: $filters) readOnly
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {
      edges { node { id name displayName state config summaryMetrics historyLineCount sweepName createdAt
                     user { name username } } cursor }
      pageInfo { endCursor hasNextPage } } } }"""
SWEEP = """query Sweep($project: String, $entity: String, $name: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $name) {
    id name displayName method state description config createdAt runCount bestLoss } } }"""
SWEEPS = """query Sweeps($project: String!, $entity: String!) { project(name: $project, entityName: $entity) {
    totalSweeps sweeps(first: 50) { edges { node { id name state runCount bestLoss } } } } }"""


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory now (`VmRSS`) or at most so far (`VmHWM`)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


class Probe:
    """Asks a hub and keeps how long it took: (what, seconds, server CPU seconds, bytes)."""

    def __init__(self, hub: HubProcess) -> None:
        assert hub._process is not None
        self.pid = hub._process.pid
        secret = load_secret(hub.folder / "hub")
        store: Any = None
        cookie = Auth(store, secret).sign({"session": "local"}, 3600)
        self._client = httpx.Client(base_url=hub.url, timeout=60, headers={"authorization": basic(hub.api_key)})
        self._client.cookies.set(COOKIE, cookie)
        self.found: list[tuple[str, float, float, int]] = []

    def _timed(self, what: str, call: Callable[[], httpx.Response]) -> httpx.Response:
        began, cpu = time.perf_counter(), cpu_seconds(self.pid)
        answer = call()
        seconds = time.perf_counter() - began
        assert answer.status_code == 200, answer.text[:500]
        self.found.append((what, seconds, cpu_seconds(self.pid) - cpu, len(answer.content)))
        return answer

    def page(self, what: str, path: str) -> None:
        self._timed(what, lambda: self._client.get(path, headers={"accept": "text/html"}))

    def ask(self, what: str, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        return self._timed(what, lambda: self._client.post("/graphql", json=body)).json()["data"]


def probe_folder(folder: Path, key: str) -> None:
    hub = HubProcess(folder)
    hub.api_key = key
    began = time.perf_counter()
    with hub:
        print(f"start {time.perf_counter() - began:.2f} s")
        p = Probe(hub)
        print(f"rss {memory_mb(p.pid):.0f} MB")
        for turn in ("cold", "warm"):
            p.page(f"{turn} sweep of 500", "/local/many/sweeps/many000")
            p.page(f"{turn} twin of 500", "/local/many/sweeps/many000/data.json")
            p.page(f"{turn} sweep of 10000", "/local/one/sweeps/one000")
            p.page(f"{turn} twin of 10000", "/local/one/sweeps/one000/data.json")
            p.page(f"{turn} project one", "/local/one")
            p.page(f"{turn} project many", "/local/many")
            p.page(f"{turn} home", "/")
            p.page(f"{turn} run", "/local/one/runs/s21r00005")
        for turn in ("cold", "warm"):
            p.ask(f"{turn} wire sweep 10000", SWEEP, entity="local", project="one", name="one000")
            p.ask(f"{turn} wire sweeps", SWEEPS, entity="local", project="many")
            common = {"entity": "local", "project": "one"}
            p.ask(f"{turn} wire runs", RUNS, **common, order="+created_at", filters="{}")
            p.ask(f"{turn} wire runs page 100", RUNS, **common, order="+created_at", filters="{}", cursor="5000")
            p.ask(f"{turn} wire runs by loss", RUNS, **common, order="+summary_metrics.loss", filters="{}")
            wanted = json.dumps({"$and": [{"sweep": "one000"}, {"state": "finished"}]})
            p.ask(f"{turn} wire runs of sweep", RUNS, **common, order="-created_at", filters=wanted)
            wanted = json.dumps({"config.lr.value": {"$lt": 0.001}})
            p.ask(f"{turn} wire runs by config", RUNS, **common, order="-created_at", filters=wanted)
        for what, seconds, cpu, size in p.found:
            print(f"{what:28s} {seconds:7.3f} s  {cpu:6.2f} cpu s  {size / 1e3:9.0f} kB")
        print(f"rss {memory_mb(p.pid):.0f} MB, peak {memory_mb(p.pid, 'VmHWM'):.0f} MB")


if __name__ == "__main__":
    probe_folder(Path(sys.argv[1]), sys.argv[2])
