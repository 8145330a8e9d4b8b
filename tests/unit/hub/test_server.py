"""The hub's endpoints and its start: errors as the client reads them, and starts that cannot be."""

import base64
import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from prunefleet.infra import server
from prunefleet.infra.controller.contract import Suggestion
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.database import execute, scalar
from prunefleet.infra.hub.store.errors import StartupError, Unavailable
from prunefleet.infra.server import _Server, address, exposure, listen, load_admin_token, to_paste
from prunefleet.infra.wire.graphql.ids import encode

from support.hub import Clock, Suggestions, basic, local_hub, make_agent, make_sweep, post, served


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with local_hub(tmp_path / "data", Clock()) as hub:
        yield hub


@dataclass(frozen=True)
class Client:
    """The served hub, spoken to with a good key unless told otherwise."""

    url: str
    key: str

    def post(self, path: str, body: Any, authorization: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": basic(self.key) if authorization is None else authorization}
        return post(self.url + path, body, headers)

    def query(self, text: str, **variables: Any) -> tuple[int, Any]:
        return self.post("/graphql", {"query": text, "variables": variables})


@pytest.fixture
def client(hub: Hub) -> Iterator[Client]:
    key = hub.auth.add_user("local", "k" * 40)
    with served(hub) as url:
        yield Client(url, key)


def fill_disk(hub: Hub) -> None:
    pages = hub.store.write(lambda c: scalar(c, "PRAGMA page_count"))
    hub.store.write(lambda c: execute(c, f"PRAGMA max_page_count={pages}"))


def free_disk(hub: Hub) -> None:
    hub.store.write(lambda c: execute(c, "PRAGMA max_page_count=1000000"))


def test_what_watches_servers_needs_no_key(hub: Hub, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/healthz` answers anybody while the database does, tells nothing else, and fails with it."""
    with urllib.request.urlopen(f"{client.url}/healthz", timeout=60) as answer:
        assert answer.status == 200 and json.load(answer) == {"healthy": True}

    def lost() -> bool:
        raise Unavailable("disk: gone")

    monkeypatch.setattr(hub.auth, "has_keys", lost)
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(f"{client.url}/healthz", timeout=60)
    assert told.value.code == 503
    told.value.close()


def test_a_full_disk_is_an_error_that_the_client_retries(hub: Hub, client: Client) -> None:
    """Streams are refused with 503 and a sentence; nothing is half-written; later the same message is taken."""
    assert client.query('mutation {upsertBucket(input: {name: "r", modelName: "p", host: "h"}) {inserted}}')[0] == 200
    fill_disk(hub)
    lines = [json.dumps({"_step": n}) for n in range(9999)]
    rows = {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}}
    status, answer = client.post("/files/local/p/r/file_stream", rows)
    assert (status, "nothing was written" in answer["error"]) == (503, True)
    text = 'mutation($c: JSONString) {upsertBucket(input: {name: "r", modelName: "p", config: $c}) {inserted}}'
    status, answer = client.query(text, c=json.dumps({"a": {"value": "x" * 9999}}))
    assert (status, "free space" in answer["errors"][0]["message"]) == (503, True)
    free_disk(hub)
    assert client.post("/files/local/p/r/file_stream", rows)[0] == 200
    run = hub.records.run("local", "p", "r")
    assert run is not None
    assert (run.history_lines, run.config) == (9999, {})


def test_a_refused_claim_is_made_good(hub: Hub, client: Client) -> None:
    """A claim that the disk refused hands out nothing, tells the controller, and succeeds when there is room."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    assert isinstance(hub.suggester, Suggestions)
    hub.suggester.poked.clear()
    hub.suggester.answer = lambda: Suggestion({}, {"note": "x" * 9999}, {})
    fill_disk(hub)
    beat = "mutation($id: ID!) {agentHeartbeat(input: {id: $id}) {commands}}"
    assert client.query(beat, id=encode("Agent", agent))[0] == 503
    assert (hub.listing.sweep_runs(sweep.id), hub.suggester.poked) == ([], [sweep.id])
    free_disk(hub)
    assert client.query(beat, id=encode("Agent", agent))[0] == 200
    assert len(hub.listing.sweep_runs(sweep.id)) == 1


def test_errors_do_not_show_the_inside(hub: Hub, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is a 500 with one sentence; what failed is in the log alone."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(hub.records, "projects", fail)
    monkeypatch.setattr(hub, "stream", fail)
    for path, body in (("/graphql", {"query": "{models {edges {cursor}}}"}), ("/files/local/p/r/file_stream", {})):
        status, answer = client.post(path, body)
        assert status == 500
        assert "its log says why" in answer["errors"][0]["message"]
        assert "secret" not in json.dumps(answer)


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"api").decode()])
def test_requests_without_a_key_are_401(client: Client, header: str) -> None:
    """Whatever stands in the header, only a known key is let in."""
    assert client.post("/graphql", {"query": "{viewer{id}}"}, header)[0] == 401
    assert client.post("/files/local/p/r/file_stream", {}, header)[0] == 401


def test_a_taken_port_is_told() -> None:
    """The refusal names address and remedy in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"got 127.0.0.1:{port}.*--port 0"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("127.0.0.1", 70000), ("no such host.", 0)])
def test_addresses_that_cannot_be_are_told(host: str, port: int) -> None:
    """An address of another machine or an impossible port is refused in one line."""
    with pytest.raises(StartupError, match="host, port: got") as refused:
        listen(host, port)
    assert "\n" not in str(refused.value)


def test_a_hub_says_what_to_paste_and_where_its_pages_are() -> None:
    """Two exports and the page's address; a key is told once, and later how to come to another."""
    first, later = to_paste("http://h:1", "k" * 40), to_paste("http://h:1", None)
    assert first == [
        "Hub at http://h:1",
        "export WANDB_BASE_URL=http://h:1",
        f"export WANDB_API_KEY={'k' * 40}",
        "Page: http://h:1/",
    ]
    assert later[:2] == first[:2] and later[3:] == first[3:]
    assert later[2].startswith("# WANDB_API_KEY: as told at the first start; another one: prunefleet hub keys add")


def test_start_problems_end_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one line on stderr."""
    (tmp_path / "file").write_text("x")
    assert server.run(tmp_path / "file") == 2
    assert server.run(tmp_path / "data", ready_file=tmp_path / "nowhere" / "ready.json") == 2
    assert server.run(tmp_path / "data", admin_token_file=tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["data folder", "ready file", "admin token file"]


def test_the_admin_token_is_made_once_and_private(tmp_path: Path) -> None:
    """A missing file is made with mode 0600; a given one is read; an empty one is refused."""
    made = load_admin_token(tmp_path / "new" / "token")
    assert (tmp_path / "new" / "token").stat().st_mode & 0o777 == 0o600
    assert load_admin_token(tmp_path / "new" / "token") == made
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(StartupError, match="is empty"):
        load_admin_token(tmp_path / "empty")


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("lab", True)]
)
def test_listening_beyond_this_machine_warns(host: str, warned: bool) -> None:
    """Keys travel unencrypted there, so somebody is told."""
    assert (exposure(host) is not None) is warned


def test_addresses_are_reachable_ones() -> None:
    """A wildcard address is shown as this machine's name, an IPv6 one in brackets."""
    assert address("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert address("::1", 80) == "http://[::1]:80"
    assert address("0.0.0.0", 80) == f"http://{socket.gethostname()}:80"


RAW = [
    b"GET /?\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /%ff%fe/%00 HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::\r\nAccept: text/html\r\n\r\n",
    b'GET /login HTTP/1.1\r\nHost: a\xff"<b>\r\n\r\n',
    b"GET /login?next=%ff HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET //evil/x HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nCookie: prunefleet_session=\xff\xe9\r\n\r\n",
    b"POST /graphql HTTP/1.1\r\nHost: h\r\nAuthorization: Basic \xff\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /admin/users HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \xe9\r\nContent-Length: 0\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nkey=\xff\xfe",
    b"PUT /upload/%ed%a0%80 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize("sent", RAW, ids=range(len(RAW)))
def test_bytes_that_are_no_text_are_no_fault(client: Client, sent: bytes) -> None:
    """Bytes beyond ASCII in address, host, cookie, key or form are refused or passed over, never a fault."""
    port = int(client.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(sent)
        status = connection.recv(12).split()[1]
    assert 200 <= int(status) < 500


def test_asking_twice_to_end_does_not_break_the_end_off() -> None:
    """A second Ctrl-C while the hub ends leaves it to end in order: forced, it printed a traceback."""
    asked = _Server(uvicorn.Config("no:app"))
    for _ in range(2):
        asked.handle_exit(signal.SIGINT, None)
    assert (asked.should_exit, asked.force_exit) == (True, False)
