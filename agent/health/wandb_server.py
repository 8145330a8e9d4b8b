"""The way to the sweep server: address, key, clock, speed, and how measurements elsewhere are asked for there."""

import email.utils
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from statistics import median

from prunefleet.agent.health.finding import OK, PROBLEM, WARNING, Finding, graded
from prunefleet.agent.tracking.probe import TIMEOUT_S, require_server
from prunefleet.objective.errors import BadInput
from prunefleet.objective.wandb_login import base_url, is_named

ROUNDS = 5
SLOW_S, FAR_OFF_S, WRONG_S = 0.5, 5.0, 300.0


def server() -> Iterator[Finding]:
    """All that is looked at; one finding alone where no server is named or it does not answer."""
    yield Finding("wandb", OK, f"client {metadata.version('wandb')}")
    if not is_named():
        yield Finding("server", WARNING, "none is named", "set WANDB_BASE_URL and WANDB_API_KEY to the fleet's server")
        return
    try:
        user = require_server()
    except BadInput as error:
        yield Finding("server", PROBLEM, f"{error.field}: got {error.got!r}", error.remedy)
        return
    yield Finding("server", OK, f"{base_url()}, user {user}")
    yield from _answers()
    yield _queue()


def _answers() -> Iterator[Finding]:
    """The server's clock beside this host's, and how long an answer takes."""
    took, apart = [], None
    for _ in range(ROUNDS):
        began = time.perf_counter()
        date = _date(f"{base_url()}/healthz")
        took.append(time.perf_counter() - began)
        if date is not None:
            apart = (datetime.now(UTC) - date).total_seconds()
    if apart is not None:
        remedy = "set this host's clock: `sudo timedatectl set-ntp true`"
        yield graded(
            "clock",
            f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the server's",
            (abs(apart) > WRONG_S, PROBLEM, f"{remedy}; certificates and tokens are refused by it"),
            (abs(apart) > FAR_OFF_S, WARNING, f"{remedy}; times on the page are wrong by as much"),
        )
    slow = "each trial makes some dozens of requests, each network sent takes longer: a wire, or a server nearby"
    yield graded("link", f"{1e3 * median(took):.0f} ms an answer", (median(took) > SLOW_S, WARNING, slow))


def _date(url: str) -> datetime | None:
    """When the server says it is; None where it does not say."""
    request = urllib.request.Request(url, headers={"User-Agent": "prunefleet"})  # noqa: S310 - require_server checked it
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            told = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # it answers, which is all that is asked
        told = error.headers.get("Date")
        error.close()
    except OSError:
        return None
    return email.utils.parsedate_to_datetime(told) if told else None


def _queue() -> Finding:
    """Which way devices elsewhere are asked: by runs that are enqueued, or by artifacts that their hosts look for."""
    from prunefleet.agent.measure.remote.device_queue import can_enqueue

    found = "requests are enqueued on the device's sweep, which `wandb agent` serves"
    if not can_enqueue():
        found = "the server enqueues no runs: one host per device looks for requests, `prunefleet measure --poll NAME`"
    return Finding("measuring elsewhere", OK, found)
