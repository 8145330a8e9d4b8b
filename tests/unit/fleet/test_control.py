"""`prunefleet agents` against a hub, and against a server that is none."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.cli import main
from prunefleet.infra.fleet import control
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.rows import Hold, SweepRow
from prunefleet.infra.wandb_api import Address

from support.hub import Clock, local_hub, make_agent, make_sweep, served


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub(tmp_path / "hub", Clock()) as hub, served(hub) as url:
        key = hub.auth.ensure_first_user()
        assert key is not None
        for name, value in {"BASE_URL": url, "API_KEY": key, "DIR": str(tmp_path), "SILENT": "true"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.delenv("WANDB_ENTITY", raising=False)
        yield hub


@pytest.fixture
def sweep(hub: Hub) -> SweepRow:
    return make_sweep(hub)


def tell(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["agents", *words, "--project", "demo"]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_agents_are_listed_and_asked(hub: Hub, sweep: SweepRow, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has each agent's host, state and run; what is asked is done and told in a line for each agent."""
    one, two = make_agent(hub, sweep, "bench"), make_agent(hub, sweep, "edge")
    name, command = hub.records.agent_by_id(one).name, hub.heartbeat(one, set())
    assert command is not None
    lines = tell(capsys).splitlines()
    assert f"Agents of local/demo/{sweep.name}, running" in lines[0]
    assert [line.split()[:4] for line in lines if "bench" in line] == [[name, "bench", "running", command["run_id"]]]
    assert tell(capsys, "pause", name) == f"{name} on bench: the run under way goes on, and it gets no other\n"
    assert "then it leaves" in tell(capsys, "drain", "edge", sweep.name)
    assert [hub.records.agent_by_id(each).hold for each in (one, two)] == [Hold.PAUSE, Hold.DRAIN]
    listed = tell(capsys, "list", f"local/demo/{sweep.name}")
    assert "edge is held, with whatever joins from there: prunefleet agents resume edge" in listed
    assert main(["agents", f"demo/{sweep.name}", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in told["agents"]] == ["paused", "draining"]
    assert told["agents"][0]["run"] == command["run_id"]


def test_a_host_is_asked_on_each_of_its_sweeps(hub: Hub, sweep: SweepRow, capsys: pytest.CaptureFixture[str]) -> None:
    """Without SWEEP a host's agents on all sweeps of the project are concerned."""
    further = make_sweep(hub)
    agents_of_bench = [make_agent(hub, each, "bench") for each in (sweep, further)]
    assert tell(capsys, "pause", "bench").count("goes on, and it gets no other") == 2
    assert [hub.records.agent_by_id(each).hold for each in agents_of_bench] == [Hold.PAUSE] * 2


def test_unknown_names_are_told_with_what_there_is(
    hub: Hub, sweep: SweepRow, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line lists the agents; a sweep that is not there is named; an agent that has left says so."""
    assert tell(capsys, "stop", "nobody", code=2).endswith(f"no agent works on local/demo/{sweep.name}\n")
    agent = make_agent(hub, sweep, "bench")
    name = hub.records.agent_by_id(agent).name
    told = tell(capsys, "stop", "nobody", code=2)
    assert told == f"prunefleet: AGENT: got 'nobody'; there is {name} on bench\n"
    assert "SWEEP: got 'local/demo/none'; it is not on this server" in tell(capsys, "none", code=2)
    assert "give it as ENTITY/PROJECT/ID" in tell(capsys, "a/b/c/d", code=2)
    tell(capsys, "drain", name)
    hub.heartbeat(agent, set())
    assert f"agent: got '{name}'; name one that is there, or its host bench" in tell(capsys, "pause", name, code=2)


def test_the_folder_of_up_needs_no_variables(
    hub: Hub, sweep: SweepRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no key is set, the hub and the sweep of `prunefleet up` in --data are meant."""
    state = {name: os.environ[f"WANDB_{name.upper()}"] for name in ("base_url", "api_key")}
    known = {"url": state["base_url"], "api_key": state["api_key"], "sweep": f"local/demo/{sweep.name}"}
    (tmp_path / "up.json").write_text(json.dumps(known))
    for name in state:
        monkeypatch.delenv(f"WANDB_{name.upper()}")
    make_agent(hub, sweep, "bench")
    assert "bench" in tell(capsys, "--data", str(tmp_path))
    for name in state:  # what the command has set
        monkeypatch.delenv(f"WANDB_{name.upper()}")


class _Elsewhere(BaseHTTPRequestHandler):
    """Answers with a page, or leads elsewhere; remembers who came with a key."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(302 if self.path.startswith("/away") else 200)
        self.send_header("Location", "/stolen")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("prefix", ["", "/away"])
def test_another_server_is_told_from_a_hub(prefix: str) -> None:
    """A page for people is no answer, and a key follows no redirection."""
    server = HTTPServer(("127.0.0.1", 0), _Elsewhere)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}{prefix}"
        assert control._ask(Address(url, "k" * 40), "e/p/s") is None
        assert server.asked == [f"{prefix}/e/p/sweeps/s/agents.json"]  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_without_the_address_lists_what_the_api_tells(
    hub: Hub, sweep: SweepRow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B's own operations name agents, hosts and states; one line says that pausing needs the hub."""
    monkeypatch.setattr(control, "_ask", lambda *_: None)
    make_agent(hub, sweep, "bench")
    told = tell(capsys)
    assert "bench" in told and "running" in told
    assert "its server must be prunefleet's hub" in told
    assert "agents pause: got 'bench'; to pause, resume, drain or stop" in tell(capsys, "pause", "bench", code=2)
