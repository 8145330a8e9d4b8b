"""The line that another host is joined with: what it installs, and the command with its token."""

from __future__ import annotations

import shlex

from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.users.host_keys import Invitation
from prunefleet.infra.hub.users.wheel import NAME, wheel

FOLDER = "~/prunefleet"
VARIABLE = "PRUNEFLEET_JOIN_TOKEN"


def join_line(url: str, invitation: Invitation) -> str:
    """One line for a shell of the other host.

    The token goes in by the environment: what stands in a command's arguments everybody on the host can read in `ps`.
    The wheel's hash holds what is installed to what this hub has, whatever happens to it on the way.
    """
    python = f"python3 -m venv {FOLDER} && {FOLDER}/bin/pip install {shlex.quote(requirement(url, invitation.extra))}"
    return f"{python} && {VARIABLE}={invitation.token} {FOLDER}/bin/prunefleet join {shlex.quote(url)}"


def requirement(url: str, extra: str) -> str:
    """What pip is asked for: this hub's wheel; the index's where this hub has none to give."""
    try:
        made = wheel()
    except Missing:
        return f"{NAME}[{extra}]"
    return f"{NAME}[{extra}] @ {url}/wheel/{made.name}#sha256={made.sha256}"
