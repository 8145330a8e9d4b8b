"""What all tests share: markers that skip with a reason, or fail where CI has promised that the means are there."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import settings

# The same examples every time: a failure is found again by running again, on any machine.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


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


NEEDS: dict[str, Callable[[], str | None]] = {
    "browser": _browser,
    "netns": _namespaces,
    "debian": _debian,
    "openssl": _openssl,
    "mount": _mounts,
}
REQUIRED = frozenset(filter(None, os.environ.get("PRUNEFLEET_REQUIRE", "").split(",")))
_missing: dict[str, str | None] = {}


@pytest.fixture(autouse=True)
def _means(request: pytest.FixtureRequest) -> None:
    """Skip a marked test whose means are missing, or fail it where PRUNEFLEET_REQUIRE names them."""
    for need, probe in NEEDS.items():
        if request.node.get_closest_marker(need) is None:
            continue
        reason = _missing.setdefault(need, probe())
        if reason and need in REQUIRED:
            pytest.fail(f"{need} is required here: {reason}")
        if reason:
            pytest.skip(reason)
