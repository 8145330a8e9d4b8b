"""How long a hub on a large folder takes to start and to answer, and what it holds in memory."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from prunefleet.infra.dashboard.session import COOKIE
from prunefleet.infra.hub.users.auth import Auth, load_secret

from support.hub import HubProcess, basic
from support.measure import cpu_seconds

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


class Probe:
    """Asks a hub and keeps how long it took: (what, seconds, server CPU seconds, bytes)."""

    def __init__(self, hub: HubProcess) -> None:
        self.pid = hub.pid
        secret = load_secret(hub.folder / "hub")
        store: Any = None
        cookie = Auth(store, secret).sign({"session": "local"}, 3600)
        self._client = httpx.Client(base_url=hub.url, timeout=60, headers={"authorization": basic(hub.api_key)})
        self._client.cookies.set(COOKIE, cookie)
        self.found: list[tuple[str, float, float, int]] = []

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

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


PAGES = {
    "sweep of 10,000": "/local/one/sweeps/one000",
    "its data for the page's polling": "/local/one/sweeps/one000/data.json",
    "sweep of 500": "/local/many/sweeps/many000",
    "project with a sweep of 10,000": "/local/one",
    "project with 20 sweeps of 500": "/local/many",
    "all projects": "/",
    "run of the sweep of 10,000": "/local/one/runs/s21r00005",
}
SEVERAL = json.dumps({"$and": [{"sweep": "one000"}, {"state": "finished"}]})
LOW_RATE = json.dumps({"config.lr.value": {"$lt": 0.001}})
ONE = {"entity": "local", "project": "one"}
QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wire: sweep of 10,000": (SWEEP, {**ONE, "name": "one000"}),
    "wire: 20 sweeps of 500": (SWEEPS, {"entity": "local", "project": "many"}),
    "wire: first page of 10,000 runs": (RUNS, {**ONE, "order": "+created_at", "filters": "{}"}),
    "wire: their page 100": (RUNS, {**ONE, "order": "+created_at", "filters": "{}", "cursor": "5000"}),
    "wire: by sweep and state": (RUNS, {**ONE, "order": "-created_at", "filters": SEVERAL}),
    "wire: ordered by the metric": (RUNS, {**ONE, "order": "+summary_metrics.loss", "filters": "{}"}),
    "wire: by a value in the config": (RUNS, {**ONE, "order": "-created_at", "filters": LOW_RATE}),
}


def probe(probe: Probe) -> None:
    """Every page and query twice: as the first one after the start, and once it is known."""
    for turn in ("first", "again"):
        for what, path in PAGES.items():
            probe.page(f"{what}, {turn}", path)
        for what, (query, variables) in QUERIES.items():
            probe.ask(f"{what}, {turn}", query, **variables)
