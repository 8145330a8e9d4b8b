"""How another machine joins a sweep: two variables and one line to paste there."""

import ipaddress
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit


def join_lines(url: str, api_key: str, sweep: str, environment: Path | None = None) -> tuple[str, str, str]:
    """Two exports and the agent's line; `environment` is the folder of the other host's Python environment."""
    bin_folder = (environment or Path(sys.prefix)) / "bin"
    return (
        f"export WANDB_BASE_URL={shlex.quote(url)}",
        f"export WANDB_API_KEY={shlex.quote(api_key)}",
        f"PATH={shlex.quote(str(bin_folder))}:$PATH wandb agent --forward-signals {shlex.quote(sweep)}",
    )


def reachable_from_elsewhere(url: str) -> bool:
    """Whether other machines can open `url`: false for loopback addresses and names."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
