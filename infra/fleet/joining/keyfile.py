"""What a joined host keeps: a file per sweep with the server, the key and the sweep, readable by its user alone.

`~/.config/prunefleet/NAME.env` holds `NAME=value` lines, as a shell or systemd reads them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunefleet.infra.settings import VARIABLES
from prunefleet.objective.errors import BadInput

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ROLE, KEY_FROM = "PRUNEFLEET_ROLE", "PRUNEFLEET_KEY_FROM"
OWN = ("WANDB_BASE_URL", "WANDB_API_KEY", "SWEEP", ROLE, KEY_FROM)
# What a service would not know otherwise: it starts with an empty environment.
KEPT = (
    *(variable.name for variable in VARIABLES if variable.name.startswith("PRUNEFLEET_")),
    *("CUDA_VISIBLE_DEVICES", "PYTHONPATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
TOKEN, GIVEN = "token", "given"


@dataclass(frozen=True)
class Membership:
    """One sweep that this host has joined. `role` is the extra it needs: `measure` for a device's queue, else `trial`.

    `key_from` says whether the key was made for this host or is its user's own; `more` is what else its agents get.
    """

    name: str
    url: str
    api_key: str = field(repr=False)
    sweep: str
    role: str = "trial"
    key_from: str = GIVEN
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named(self.name)

    @property
    def path(self) -> Path:
        """Its file."""
        return config_folder() / f"{self.name}.env"

    def environment(self) -> dict[str, str]:
        """What its agents get of it."""
        return {**self.more, "WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.api_key, "SWEEP": self.sweep}

    def save(self) -> None:
        """Write the file, mode 0600 from its first byte on, whole or not at all."""
        config_folder().mkdir(parents=True, exist_ok=True)
        own = {**self.environment(), ROLE: self.role, KEY_FROM: self.key_from}
        lines = [f"# Made by `prunefleet join`; `prunefleet leave {self.name}` removes it."]
        lines += [f"{name}={shlex.quote(value)}" for name, value in own.items()]
        draft = self.path.with_name(f".{self.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def named(name: str) -> str:
    """Return `name` if it may name a file and a service. Raises `BadInput`."""
    if not NAME.fullmatch(name):
        raise BadInput("NAME", name, "give letters, digits, and _ . - after the first, at most 64 in all")
    return name


def config_folder() -> Path:
    """Where the files are."""
    return Path.home() / ".config" / "prunefleet"


def state_folder(name: str) -> Path:
    """Where the agents of a sweep keep logs and what was not sent yet."""
    return Path.home() / ".local" / "state" / "prunefleet" / name


def find(name: str) -> Membership | None:
    """What is kept under that name. Raises `BadInput` for a file that lacks something."""
    path = config_folder() / f"{named(name)}.env"
    if not path.is_file():
        return None
    values = read(path)
    for needed in OWN[:3]:
        if not values.get(needed):
            raise BadInput(f"{path}: {needed}", "", "write it there, or join again: `prunefleet join`")
    url, key, sweep = (values[each] for each in OWN[:3])
    more = {each: value for each, value in values.items() if each not in OWN}
    role, key_from = values.get(ROLE, "trial"), values.get(KEY_FROM, GIVEN)
    return Membership(name, url, key, sweep, role, key_from, more)


def joined_here() -> list[str]:
    """The names that `prunefleet join` made, without files that somebody wrote by hand."""
    found = sorted(config_folder().glob("*.env")) if config_folder().is_dir() else []
    return [path.stem for path in found if NAME.fullmatch(path.stem) and KEY_FROM in read(path)]


def read(path: Path) -> dict[str, str]:
    """The variables in a file, quoted as a shell would have them."""
    try:
        words = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    except (OSError, ValueError) as error:
        raise BadInput("key file", str(path), f"make it readable, with a NAME=value in each line: {error}") from error
    pairs = [word.partition("=") for word in words]
    return {name: value for name, equals, value in pairs if equals}
