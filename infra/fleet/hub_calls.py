"""What hosts ask of a hub beside the wandb client's wire: a key for a token, a token for a host, and an end."""

from __future__ import annotations

import base64
import json
import socket
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from prunefleet.objective import wandb_login
from prunefleet.objective.errors import BadInput

TIMEOUT_S = 30
PREFIX = "join-"  # of a token; a key is hexadecimal, or has a prefix of its server's
CLOUD = wandb_login.CLOUD


class Refused(Exception):
    """The server answered, and not as was hoped: its status, and its line where it has one."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(f"{status}: {line}")
        self.status, self.line = status, line


class Away(Exception):
    """The server did not answer."""


def address(url: str) -> str:
    """The server's address as the wandb client wants it. Raises `BadInput` for none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise BadInput("URL", url, "give the server's address, such as http://192.0.2.10:8765 or https://api.wandb.ai")
    if parts.hostname in ("wandb.ai", "www.wandb.ai"):
        return CLOUD
    return url.split("#")[0].rstrip("/")


def key_for(url: str) -> str | None:
    """The user's API key for a server, where the client would find it: WANDB_API_KEY, or what `wandb login` wrote."""
    return wandb_login.key_for(url) or None


def exchange(url: str, token: str) -> dict[str, str]:
    """The key, its user, the sweep and the extra that a token is good for. Raises `BadInput`."""
    try:
        answer = post(url, "/join", {"token": token, "host": socket.gethostname()})
        return {name: str(answer[name]) for name in ("api_key", "username", "sweep", "extra")}
    except Refused as refusal:
        if refusal.status == 401:
            raise BadInput("token", f"…{token[-4:]}", refusal.line.removeprefix("token: ")) from None
        raise BadInput("URL", url, f"it takes no join tokens ({refusal}); give an API key and the sweep") from None
    except KeyError:
        raise BadInput("URL", url, "it takes no join tokens; give an API key and the sweep") from None
    except Away as error:
        raise BadInput("URL", url, f"start the server there or correct the address: {error}") from None


def invite(url: str, key: str, sweep: str, minutes: int) -> str:
    """The line that another host is joined to the sweep with. Raises `BadInput`."""
    try:
        return str(post(url, "/join/tokens", {"sweep": sweep, "minutes": minutes}, key)["line"])
    except Refused as refusal:
        field, _, rest = refusal.line.partition(": ")
        given: dict[str, object] = {"sweep": sweep, "minutes": minutes, "key": f"…{key[-4:]}"}
        if field in given:
            raise BadInput(field, given[field], rest.partition("; ")[2] or rest) from None
        if refusal.status == 401:
            raise BadInput("WANDB_API_KEY", f"…{key[-4:]}", f"set the key of a user of {url}") from None
        raise _no_tokens(url, sweep) from None
    except KeyError:
        raise _no_tokens(url, sweep) from None
    except Away as error:
        raise BadInput("WANDB_BASE_URL", url, f"start the server there or correct the address: {error}") from None


def _no_tokens(url: str, sweep: str) -> BadInput:
    return BadInput(
        "WANDB_BASE_URL", url, f"this server makes no tokens: run `prunefleet join {url} {sweep}` there with an API key"
    )


def give_up(url: str, key: str) -> None:
    """Revoke the key at the hub that made it. Raises `Refused` and `Away`."""
    post(url, "/leave", {}, key)


def post(url: str, path: str, body: object, key: str | None = None) -> dict[str, Any]:
    """The JSON that a POST is answered. Raises `Refused`, also for a redirection, which leads keys away, and `Away`."""
    headers = {"Content-Type": "application/json", "User-Agent": "prunefleet"}
    if key is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)  # noqa: S310 - `address` looked
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=TIMEOUT_S) as answer:
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, _line(error)) from None
    except OSError as error:
        raise Away(str(getattr(error, "reason", error))) from None
    except ValueError:
        raise Refused(200, "no JSON") from None
    return content if isinstance(content, dict) else {}


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Nothing is asked elsewhere."""


def _line(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(str(json.load(error)["error"]).split())[:300]
    except (ValueError, KeyError, TypeError, OSError):
        return error.reason if isinstance(error.reason, str) else "no word why"
