"""How another machine joins a sweep: two variables and one line to paste there."""

import ipaddress
import json
import shlex
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlencode, urlsplit


def join_lines(url: str, api_key: str, sweep: str, environment: Path | None = None) -> tuple[str, str, str]:
    """Two exports and the agent's line; `environment` is the folder of the other host's Python environment."""
    bin_folder = (environment or Path(sys.prefix)) / "bin"
    return (
        f"export WANDB_BASE_URL={shlex.quote(url)}",
        f"export WANDB_API_KEY={shlex.quote(api_key)}",
        f"PATH={shlex.quote(str(bin_folder))}:$PATH wandb agent --forward-signals {shlex.quote(sweep)}",
    )


def sign_in_link(url: str, admin_token: str, username: str, onward: str) -> str:
    """An address that signs its reader in once, for a short time, and leads to the path `onward`.

    Raises `OSError` when the hub does not answer.
    """
    request = urllib.request.Request(  # noqa: S310 - the hub's own http address
        f"{url}/admin/tickets",
        data=json.dumps({"username": username}).encode(),
        headers={"Authorization": f"Bearer {admin_token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        ticket = json.loads(answer.read())["ticket"]
    return f"{url}/login?{urlencode({'ticket': ticket, 'next': onward})}"


def reachable_from_elsewhere(url: str) -> bool:
    """Whether other machines can open `url`: false for loopback addresses and names."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
