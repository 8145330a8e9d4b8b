"""Agents and runs without wandb: the same requests on the wire, sent again until they are acknowledged, and a ledger.

They cost little, so many can load a hub; what the ledger holds was acknowledged, so the hub must have it for ever.
"""

import hashlib
import http.client
import json
import random
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunefleet.infra.hub.store.integrity import opened
from prunefleet.infra.hub.upkeep.damage import check

from support.hub import basic

PAUSE_S = 0.02
BEGIN = """mutation($name: String, $sweep: String, $config: JSONString) { upsertBucket(input: {name: $name,
modelName: "load", sweep: $sweep, host: "fleet", config: $config}) { bucket { id historyLineCount } inserted } }"""
FILES = """mutation($run: String!, $files: [String!]!) { createRunFiles(input: {projectName: "load", runName: $run,
files: $files}) { files { uploadUrl } } }"""
AGENT = """mutation($sweep: String!) { createAgent(input: {sweep: $sweep, projectName: "load", host: "fleet"}) {
agent { id } } }"""
BEAT = """mutation($id: ID!, $state: JSONString) { agentHeartbeat(input: {id: $id, runState: $state}) { commands } }"""
SWEEP = (
    """mutation($config: String!) { upsertSweep(input: {config: $config, projectName: "load"}) { sweep { name } } }"""
)


class Ended(Exception):
    """The fleet was told to stop, or the hub was not heard for too long."""


@dataclass
class Ledger:
    """What the hub has acknowledged. `given`: parameters of each run that an agent was told to run, by name."""

    given: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    count: int = 0


class Fleet:
    """Threads that behave as agents with one trial each. `url` may be down at any time; a refusal (4xx) is a fault."""

    def __init__(self, url: str, key: str, seed: int, posts: int = 8, rows: int = 3) -> None:
        self._address, self._key, self._seed = urlsplit(url), key, seed
        self._posts, self._rows = posts, rows
        self._ledger = Ledger()
        self._guard = threading.Lock()
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def sweep(self, trials: int) -> str:
        """Make a grid sweep of that many trials; its name."""
        values = ", ".join(str(value) for value in range(trials))
        config = f"program: prunefleet\nmethod: grid\nparameters:\n  x: {{values: [{values}]}}\n"
        answer = self._ask(SWEEP, config=config)
        return str(answer["upsertSweep"]["sweep"]["name"])

    def start(self, sweep: str, agents: int) -> None:
        """Let agents begin."""
        for number in range(agents):
            thread = threading.Thread(target=self._work, args=(sweep, number), name=f"agent-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the agents where they are."""
        self._stop.set()
        self.join(30)

    def join(self, seconds: float) -> None:
        """Wait until every agent was told to exit."""
        for thread in self._threads:
            thread.join(seconds)
        assert not any(thread.is_alive() for thread in self._threads), "agents are still at work"
        assert not self.faults, self.faults

    def ledger(self) -> Ledger:
        """What has been acknowledged by now."""
        with self._guard:
            return deepcopy(self._ledger)

    @property
    def count(self) -> int:
        """How many changes have been acknowledged."""
        return self._ledger.count

    def _work(self, sweep: str, number: int) -> None:
        try:
            agent = self._ask(AGENT, sweep=sweep)["createAgent"]["agent"]["id"]
            dice = random.Random(self._seed * 1000 + number)
            while (command := self._beat(agent, {})) != {"type": "exit"}:
                if command:
                    self._trial(agent, sweep, command, dice)
                else:
                    self._stop.wait(5 * PAUSE_S)
        except Ended:
            return
        except Exception as error:  # told by the test, in its own thread
            self.faults.append(f"{threading.current_thread().name}: {error!r}")

    def _beat(self, agent: str, state: dict[str, bool]) -> dict[str, Any] | None:
        commands = json.loads(self._ask(BEAT, id=agent, state=json.dumps(state))["agentHeartbeat"]["commands"])
        return commands[0] if commands else None

    def _trial(self, agent: str, sweep: str, command: dict[str, Any], dice: random.Random) -> None:
        name, args = command["run_id"], command["args"]
        self._note(lambda ledger: ledger.given.__setitem__(name, args["x"]["value"]))
        begun = self._ask(BEGIN, name=name, sweep=sweep, config=json.dumps(args))["upsertBucket"]["bucket"]
        first = begun["historyLineCount"]
        for post in range(self._posts):
            lines = [json.dumps({"_step": n, "v": dice.random()}) for n in range(first, first + self._rows)]
            self._stream(name, {"files": {"wandb-history.jsonl": {"offset": first, "content": lines}}})
            numbered = dict(enumerate(lines, first))
            self._note(lambda ledger, new=numbered: ledger.rows.setdefault(name, {}).update(new))  # type: ignore[misc]
            first += self._rows
            if post == self._posts // 2:
                self._upload(name, dice.randbytes(20_000))
            assert self._beat(agent, {name: True}) is None
        self._stream(name, {"complete": True, "exitcode": 0})
        self._note(lambda ledger: ledger.finished.add(name))

    def _upload(self, run: str, content: bytes) -> None:
        url = self._ask(FILES, run=run, files=["model.bin"])["createRunFiles"]["files"][0]["uploadUrl"]
        self._send("PUT", urlsplit(url).path, content)
        self._note(lambda ledger: ledger.files.__setitem__(run, hashlib.sha256(content).hexdigest()))

    def _note(self, change: Callable[[Ledger], Any]) -> None:
        with self._guard:
            change(self._ledger)
            self._ledger.count += 1

    def _stream(self, run: str, body: dict[str, Any]) -> None:
        self._send("POST", f"/files/local/load/{run}/file_stream", json.dumps(body).encode())

    def _ask(self, query: str, **variables: Any) -> Any:
        answer = json.loads(
            self._send("POST", "/graphql", json.dumps({"query": query, "variables": variables}).encode())
        )
        assert "errors" not in answer, answer
        return answer["data"]

    def _send(self, method: str, path: str, body: bytes) -> bytes:
        """The answer to a request, sent again while there is none or it is 5xx, as the client does."""
        while not self._stop.is_set():
            try:
                connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=30)
                headers = {"Authorization": basic(self._key), "Content-Type": "application/json"}
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                self._stop.wait(PAUSE_S)
                continue
            finally:
                connection.close()
            if answer.status < 400:
                return content
            assert answer.status >= 500, (path, answer.status, content)
            self._stop.wait(PAUSE_S)
        raise Ended


def rows_of(data: Path) -> dict[str, dict[int, str]]:
    """History rows by run and line number."""
    sql = "SELECT run.name, number, text FROM line JOIN run ON run.id = line.run_id WHERE stream = 'history'"
    found: dict[str, dict[int, str]] = {}
    with opened(data) as connection:
        for name, number, text in connection.execute(sql):
            found.setdefault(name, {})[number] = text
    return found


def assert_kept(data: Path, ledger: Ledger) -> None:
    """Everything acknowledged is in the data folder."""
    report = check(data)
    assert not report.problems, report.lines
    with opened(data) as connection:
        states = dict(connection.execute("SELECT name, state FROM run"))
        files = dict(connection.execute("SELECT run.name, sha256 FROM run_file JOIN run ON run.id = run_id"))
    assert ledger.given.keys() <= states.keys()
    assert {states[name] for name in ledger.finished} <= {"finished"}
    assert ledger.files.items() <= files.items()
    rows = rows_of(data)
    for name, told in ledger.rows.items():
        assert told.items() <= rows[name].items()
