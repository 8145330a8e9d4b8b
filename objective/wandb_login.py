"""Server and key as the wandb client has them: its variables first, then the files that `wandb login` writes.

Read here without the client, which takes a second to import: a key that is missing is told at once.
"""

import configparser
import contextlib
import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

CLOUD = "https://api.wandb.ai"
URL, KEY = "WANDB_BASE_URL", "WANDB_API_KEY"
SECTION = "default"


def base_url() -> str:
    """Return the server's address: WANDB_BASE_URL, what `wandb login --host` wrote, else wandb.ai's."""
    given = os.environ.get(URL) or next(filter(None, map(_written_url, _settings())), CLOUD)
    return given.rstrip("/")


def key_for(url: str) -> str:
    """Return the key for a server: WANDB_API_KEY, or what `wandb login` wrote for it; "" where there is none.

    The client writes the server's host with its port; an older one left the port out.
    """
    parts = urlsplit(url)
    return os.environ.get(KEY) or next(filter(None, map(_written_key, (parts.netloc, parts.hostname))), "")


def is_named() -> bool:
    """Return whether a server is named on this host: by a variable, or by `wandb login`."""
    return bool({URL, KEY} & set(os.environ)) or base_url() != CLOUD or bool(key_for(CLOUD))


def _settings() -> Iterator[Path]:
    """The client's settings files, the one that counts first."""
    yield Path(".wandb" if Path(".wandb").exists() else "wandb") / "settings"
    yield Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"


def _written_url(path: Path) -> str:
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        parser.read(path)
    return parser.get(SECTION, "base_url", fallback="")


def _written_key(host: str | None) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError, netrc.NetrcParseError, RuntimeError):
        found = netrc.netrc(_netrc()).authenticators(host or "")
        return (found[2] or "") if found else ""
    return ""


def _netrc() -> Path:
    names = [os.environ.get("NETRC") or "", "~/.netrc", "~/_netrc"]
    paths = [Path(name).expanduser() for name in names if name]
    return paths[0] if names[0] else next((path for path in paths if path.is_file()), paths[0])
