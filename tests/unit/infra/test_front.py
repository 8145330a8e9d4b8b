"""How the hub is reached: starts that would be unsafe, what a proxy may say, and headers on every answer."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunefleet.infra import cli, server
from prunefleet.infra.front import HEADERS, Doorway, Front, front
from prunefleet.infra.hub.store.database import execute
from prunefleet.infra.hub.store.errors import StartupError

from support.access import ADMIN, World
from support.hub import Clock, local_hub


async def echo(scope: Any, _receive: Any, send: Any) -> None:
    """Answers with what a request says of itself."""
    host = dict(scope["headers"]).get(b"host", b"").decode()
    body = " ".join((scope["scheme"], host, scope.get("root_path", ""), scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(way: Front, path: str = "/a", client: str = "192.0.2.1", app: Any = echo, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(Doorway(app, way), client=(client, 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.example") as http:
            return await http.get(path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    return asyncio.run(send())


SAID = {"x_forwarded_proto": "https", "x_forwarded_host": "lab.example:8443", "x_forwarded_prefix": "/hub/"}


def test_nobody_is_believed_unasked() -> None:
    """Forwarded headers from a client, or from a proxy that is not the one named, change nothing."""
    plain = "http hub.example  /a"
    assert ask(Front(), **SAID).text == plain
    assert ask(Front(), client="127.0.0.1", **SAID).text == plain
    assert ask(Front(trusted_proxies=frozenset({"192.0.2.9"})), **SAID).text == plain


def test_a_named_proxy_is_believed() -> None:
    """Scheme, host and prefix are those that the proxy saw."""
    way = Front(trusted_proxies=frozenset({"192.0.2.1"}))
    assert ask(way, **SAID).text == "https lab.example:8443 /hub /hub/a"
    assert ask(way).text == "http hub.example  /a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_forwarded_proto", "javascript"),
        ("x_forwarded_host", "a b"),
        ("x_forwarded_host", 'x"><script>'),
        ("x_forwarded_host", "user@evil"),
        ("x_forwarded_prefix", "//evil"),
        ("x_forwarded_prefix", "/a/../b?c"),
        ("x_forwarded_prefix", "hub"),
    ],
)
def test_what_cannot_be_is_passed_over(name: str, value: str) -> None:
    """Even a trusted proxy cannot make an address of something else."""
    way = Front(trusted_proxies=frozenset({"192.0.2.1"}))
    assert ask(way, **{name: value}).text == "http hub.example  /a"


@pytest.mark.parametrize(
    ("path", "seen"), [("/a", "/hub/a"), ("/hub/a", "/hub/a"), ("/hub", "/hub"), ("/hubs", "/hub/hubs"), ("/", "/hub/")]
)
def test_the_prefix_may_be_passed_on_or_not(path: str, seen: str) -> None:
    """A proxy that strips the prefix and one that does not lead to the same address."""
    assert ask(Front(root_path="/hub"), path).text.split() == ["http", "hub.example", "/hub", seen]


def test_every_answer_has_the_headers_that_browsers_need() -> None:
    """What an application does not set itself is added; what it sets stays."""

    async def own(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"no-referrer")]})
        await send({"type": "http.response.body", "body": b""})

    found = ask(Front(), app=own).headers
    assert found["referrer-policy"] == "no-referrer"
    assert {name.decode() for name, _value in HEADERS} <= set(found)


def test_a_fault_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """What fails inside is a 500 without the inside; the log has it, without the end of the address."""

    async def fail(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("inside")

    answer = ask(Front(), "/upload/secret-token", app=fail)
    assert (answer.status_code, "inside" in answer.text) == (500, False)
    assert "its log says why" in answer.json()["error"]
    assert "secret-token" not in caplog.text
    assert "inside" in caplog.text


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"cert": "c.pem"}, "give both"),
        ({"key": "k.pem"}, "give both"),
        ({"cert": "nowhere.pem", "key": "nowhere.pem"}, "No such file"),
        ({"root_path": "hub"}, "root path"),
        ({"root_path": "/hub/"}, "root path"),
        ({"root_path": "/h?b"}, "root path"),
        ({"proxies": "localhost"}, "trusted proxies"),
        ({"proxies": "10.0.0.0/8"}, "trusted proxies"),
    ],
)
def test_settings_that_cannot_be_are_told(given: dict[str, str], word: str) -> None:
    """Each is one line that names the setting and the remedy."""
    with pytest.raises(StartupError, match=word) as refused:
        front(**{"cert": None, "key": None, "root_path": None, "proxies": None, **given})
    assert "\n" not in str(refused.value)
    assert "; give " in str(refused.value)


def test_a_broken_certificate_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prunefleet hub` ends with exit code 2 and one line."""
    path = tmp_path / "x.pem"
    path.write_text("no certificate")
    argv = ["hub", "--data", str(tmp_path / "hub"), "--tls-cert", str(path), "--tls-key", str(path)]
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tls cert, tls key: got ")


def test_a_limit_that_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prunefleet hub --max-body-mb 1` ends with exit code 2 and one line."""
    assert cli.main(["hub", "--data", str(tmp_path / "hub"), "--max-body-mb", "1"]) == 2
    assert "max body mb: got 1; give at least 32" in capsys.readouterr().err


def test_a_hub_without_keys_is_not_shown_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where every key was revoked, the hub starts on this machine alone."""
    with local_hub(tmp_path / "hub", Clock()) as hub:
        hub.auth.ensure_first_user()
        hub.store.write(lambda c: execute(c, "DELETE FROM api_key"))
    assert server.run(tmp_path / "hub", "0.0.0.0") == 2
    assert "keys: no user has one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nothing/here/at/all", "/static/live.js", "/graphql", "/download/x/y"]
)
def test_every_kind_of_answer_has_the_headers(tmp_path: Path, path: str) -> None:
    """Pages, files, refusals and unknown addresses forbid sniffing and framing, and let no script of others in."""
    with local_hub(tmp_path / "hub", Clock()) as hub:
        found = World(hub).request(ADMIN, "GET", path).headers
    assert found["x-content-type-options"] == "nosniff"
    assert "'none'" in found["content-security-policy"]
    assert "unsafe" not in found["content-security-policy"]
    assert {"referrer-policy", "x-frame-options"} <= set(found)
