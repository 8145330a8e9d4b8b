"""The systemd unit of a joined sweep, of its user: an instance of `infra/deploy/systemd/prunefleet-agent@.service`.

It is a file of its own with this environment's path in it, so that it neither needs nor changes what was put there by
hand. Sources: systemd.unit(5), systemd.service(5), systemctl(1), loginctl(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

TEMPLATE = "deploy/systemd/prunefleet-agent@.service"
STANDARD = "%h/prunefleet/bin/prunefleet"  # the command in the template
TARGET = "default.target.wants"
LINGER = Path("/var/lib/systemd/linger")
STOP_S = 180  # systemd itself gives up after TimeoutStopSec


class Failed(Exception):
    """systemctl refused; its line says why."""


def present() -> bool:
    """Whether this user has a service manager that answers."""
    return shutil.which("systemctl") is not None and _systemctl("show", "--property=Version").returncode == 0


def unit(name: str) -> str:
    """The unit's name."""
    return f"prunefleet-agent@{name}.service"


def path(name: str) -> Path:
    """The unit's file."""
    return Path.home() / ".config" / "systemd" / "user" / unit(name)


def content() -> str:
    """The unit for this environment's command."""
    command = str(Path(sys.prefix) / "bin" / "prunefleet").replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    text = (resources.files("prunefleet.infra") / TEMPLATE).read_text(encoding="utf-8")
    assert text.count(STANDARD) == 1
    return text.replace(STANDARD, f'"{command}"')


def start(name: str) -> None:
    """Write the unit, enable it, and start it anew. Raises `Failed`, with nothing left of it."""
    path(name).parent.mkdir(parents=True, exist_ok=True)
    path(name).write_text(content(), encoding="utf-8")
    try:
        for words in (("daemon-reload",), ("enable", unit(name)), ("restart", unit(name))):
            done = _systemctl(*words)
            if done.returncode != 0:
                raise Failed(" ".join((done.stderr or f"systemctl {words[0]} failed").split()))
    except Failed:
        stop(name)
        raise


def stop(name: str) -> bool:
    """Stop and disable the unit and remove its file; whether there was one. Returns when its agents have ended."""
    if not path(name).exists():
        return False
    if present():
        _systemctl("disable", "--now", unit(name))
    path(name).unlink(missing_ok=True)
    (path(name).parent / TARGET / unit(name)).unlink(missing_ok=True)  # where no manager did it
    if present():
        _systemctl("daemon-reload")
        _systemctl("reset-failed", unit(name))
    return True


def lingers() -> bool:
    """Whether the user's services run without somebody signed in."""
    return (LINGER / _user()).exists()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    argv = ["systemctl", "--user", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=STOP_S)
