"""Asking the sweep server, before anything is made, whether it answers and takes our key."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prunefleet.agent.tracking.probe import masked, require_server
from prunefleet.objective.errors import BadInput

from support.login import signed_in, signed_out
from support.paths import ROOT

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
    monkeypatch.setenv("NETRC", "/nowhere")
    with pytest.raises(BadInput, match=r"WANDB_API_KEY.*127\.0\.0\.1"):
        require_server()


def test_what_login_left_is_enough(server: type[_Answers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without variables, server and key are those that `wandb login --host` wrote."""
    url = os.environ["WANDB_BASE_URL"]
    signed_out(monkeypatch, tmp_path)
    signed_in(tmp_path, url, "192.0.2.1", KEY)
    with pytest.raises(BadInput, match=f"set it to your key on {url[:-1]}, or run `wandb login --host {url[:-1]}`"):
        require_server()
    signed_in(tmp_path, url, url.removeprefix("http://").rstrip("/"), KEY)
    assert require_server() == "ada"


@pytest.mark.parametrize("command", ["plan", "baseline"])
def test_a_missing_key_is_told_before_torch_is_loaded(tmp_path: Path, command: str) -> None:
    """One line, and exit code 2, in the first second."""
    words = [command, str(ROOT / "sweep.yaml")]
    code = f"import sys; from prunefleet.agent.__main__ import main; print(main({words}), 'torch' in sys.modules)"
    hidden = {"WANDB_BASE_URL", "WANDB_API_KEY", "NETRC", "WANDB_CONFIG_DIR"}
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 False\n"
    assert done.stderr == (
        "prunefleet: WANDB_API_KEY: got ''; set it to your key on https://api.wandb.ai, or run `wandb login`\n"
    )


def test_keys_are_masked() -> None:
    """Only the end of a key is ever told."""
    assert masked(KEY) == "…kkkk" and masked("") == ""
