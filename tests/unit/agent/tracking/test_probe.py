"""Asking the sweep server, before anything is made, whether it answers and takes our key."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from prunefleet.agent.tracking.probe import masked, require_server
from prunefleet.objective.errors import BadInput

KEY = "k" * 40


class _Answers(BaseHTTPRequestHandler):
    status, body = 200, {"data": {"viewer": {"id": "1", "username": "ada", "entity": "ada"}}}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.body).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Answers]]:
    """A server whose answer the test sets; WANDB_BASE_URL and WANDB_API_KEY name it."""
    answers = type("Answers", (_Answers,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{http.server_port}/")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield answers
        http.shutdown()
        thread.join(10)


def test_a_server_that_knows_us_tells_our_name(server: type[_Answers]) -> None:
    """The key's user comes back."""
    assert require_server() == "ada"


@pytest.mark.parametrize(("status", "body"), [(401, {}), (403, {}), (200, {"data": {"viewer": None}})])
def test_a_refused_key_is_named_but_not_shown(
    server: type[_Answers], monkeypatch: pytest.MonkeyPatch, status: int, body: dict[str, object]
) -> None:
    """A wrong key is one line with its last letters."""
    monkeypatch.setattr(server, "status", status)
    monkeypatch.setattr(server, "body", body)
    with pytest.raises(BadInput, match="WANDB_API_KEY: got '…kkkk'") as told:
        require_server()
    assert KEY not in str(told.value)


def test_another_web_server_is_none_of_wandbs(server: type[_Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that answers something else is named with what it answered."""
    monkeypatch.setattr(server, "status", 404)
    with pytest.raises(BadInput, match=r"WANDB_BASE_URL.*no W&B server: it answers 404"):
        require_server()


@pytest.mark.parametrize(("url", "words"), [("http://127.0.0.1:1", "refused"), ("127.0.0.1:8765", "write an address")])
def test_an_address_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    """Neither a dead port nor a malformed address waits: one line says what to do."""
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(BadInput, match="WANDB_BASE_URL") as told:
        require_server()
    assert words in str(told.value)


def test_no_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the line names the variable and the server."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(BadInput, match=r"WANDB_API_KEY.*127\.0\.0\.1"):
        require_server()


def test_keys_are_masked() -> None:
    """Only the end of a key is ever told."""
    assert masked(KEY) == "…kkkk" and masked("") == ""
