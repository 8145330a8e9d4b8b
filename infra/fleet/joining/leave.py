"""`prunefleet leave`: ends a host's part in a sweep, and undoes what `prunefleet join` has made there."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from prunefleet.infra.fleet import hub_calls
from prunefleet.infra.fleet.joining import keep, keyfile, systemd
from prunefleet.infra.fleet.joining.keyfile import TOKEN, Membership, state_folder
from prunefleet.objective.errors import BadInput

PATIENCE_S = 120.0  # the tiers of a stop, each at its longest
NOT_YET = 1


def leave(name: str) -> int:
    """Stop the agents, remove service and key, and revoke the key; returns 1 where its hub could not be asked.

    Raises `BadInput` for a name that is none of several, or for agents that do not end.
    """
    if not keyfile.joined_here():
        _say("There is nothing to leave: this host has joined no sweep.")
        return 0
    joined = keep.one(name)
    _say(f"Leaving {joined.sweep}: trials under way go back to it")
    systemd.stop(joined.name)
    _end_agents(joined.name)
    told = _give_up(joined)
    if told is None:
        _say(
            f"The agents have ended. {joined.url} does not answer, so its key is still good: leave again when it does."
        )
        return NOT_YET
    joined.path.unlink(missing_ok=True)
    _say(f"{told} {_tidied(joined.name)}")
    return 0


def _end_agents(name: str) -> None:
    """Agents that a terminal keeps; a service has ended its own."""
    until, asked = time.monotonic() + PATIENCE_S, False
    while (pid := keep.holder(name)) is not None:
        if not asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            asked = True
        if time.monotonic() > until:
            raise BadInput("agents", pid, f"that process does not end: look at {state_folder(name)}, and leave again")
        time.sleep(0.1)


def _give_up(joined: Membership) -> str | None:
    """What became of the key; None where nobody answered, for only its hub can revoke it."""
    if joined.key_from != TOKEN:
        return f"Left. The API key you gave stays good: revoke it at {joined.url} if nothing else needs it."
    try:
        hub_calls.give_up(joined.url, joined.api_key)
    except hub_calls.Away:
        return None
    except hub_calls.Refused as refusal:
        if refusal.status == 401:
            return "Left. Its key was revoked before."
        if refusal.status >= 500:
            return None
        return f"Left. Its key must be revoked at {joined.url}: {refusal.line}."
    return "Left. Its key is revoked."


def _tidied(name: str) -> str:
    folder = state_folder(name)
    (folder / keep.LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return f"Logs stay in {folder}." if folder.exists() else ""


def _say(text: str) -> None:
    print(text.rstrip(), flush=True)
