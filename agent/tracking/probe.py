"""Whether the sweep server answers and takes our key, asked once: the wandb client itself would try for minutes."""

import base64
import json
import urllib.error
import urllib.request

from prunefleet.objective.errors import BadInput
from prunefleet.objective.wandb_login import CLOUD, base_url, key_for

TIMEOUT_S = 10


def require_server() -> str:
    """The user name that the key stands for which the wandb client shows to its server.

    Raises `BadInput` if there is no key, the address is none, nobody answers there, or the key is refused.
    """
    url = base_url()
    key = require_key(url)
    viewer = _ask(url, key).get("viewer")
    if not viewer:
        raise BadInput("WANDB_API_KEY", masked(key), f"set the key of a user of {url}")
    return str(viewer["username"])


def require_key(url: str) -> str:
    """The key for the server at `url`, found without asking it. Raises `BadInput` where there is none."""
    key = key_for(url)
    if not key:
        login = "wandb login" if url == CLOUD else f"wandb login --host {url}"
        raise BadInput("WANDB_API_KEY", "", f"set it to your key on {url}, or run `{login}`")
    return key


def is_away() -> bool:
    """Whether no W&B server answers at the address now."""
    try:
        _ask(base_url(), key_for(base_url()))
    except BadInput as error:
        return error.field == "WANDB_BASE_URL"
    return False


def masked(key: str) -> str:
    """The end of a key, enough to recognise it by."""
    return f"…{key[-4:]}" if len(key) > 8 else key


def _ask(url: str, key: str) -> dict[str, dict[str, str] | None]:
    body = json.dumps({"query": "query Viewer { viewer { id username entity } }"}).encode()
    token = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}", "User-Agent": "prunefleet"}
    if not url.startswith(("http://", "https://")):
        raise BadInput("WANDB_BASE_URL", url, "write an address such as http://127.0.0.1:8765")
    request = urllib.request.Request(f"{url}/graphql", body, headers)  # noqa: S310 - the scheme is checked above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            data: dict[str, dict[str, str] | None] = json.load(answer).get("data") or {}
            return data
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise BadInput("WANDB_API_KEY", masked(key), f"set the key of a user of {url}") from error
        raise BadInput("WANDB_BASE_URL", url, f"this is no W&B server: it answers {error.code}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput("WANDB_BASE_URL", url, f"start the server there or correct the address: {reason}") from error
