"""How fast the dense network was on this host in earlier measurement sessions.

A host that is slow throughout a session looks steady from within, but need not be fair: neighbours that fill the shared
cache slow a large network more than a small one. Only the measurement sessions before show it.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from prunefleet.agent.host.cache_files import cache_folder, replace_file
from prunefleet.agent.measure.benchmark import CANDIDATE, MeasurementSession
from prunefleet.objective.trial import Latency

FOLDER = "pace"
KEPT = 20
FEWEST = 3
SLOWER = 1.10
"""Noisy beyond: this measurement session's 10th percentile over the lower quartile of those before."""
SESSIONS = 3
"""How often a candidate is measured while its host is slow or noisy."""


def in_its_usual_state(
    measure: Callable[[int], MeasurementSession], *about: object, folder: Path | None = None
) -> MeasurementSession:
    """The first measurement session, of up to `SESSIONS`, in which the host was as it usually is.

    Where it never was, the one with the fastest dense network; its latency is noisy then. `measure` holds one, told how
    many there were before it; `about` as for `against_the_past`.
    """
    held: list[MeasurementSession] = []
    while len(held) < SESSIONS:
        session = measure(len(held))
        latency = against_the_past(session.latency, *about, folder=folder)
        held.append(replace(session, latencies={**session.latencies, CANDIDATE: latency}))
        if not latency.noisy:
            return held[-1]
    return min(held, key=lambda session: session.latency.baseline_p10_ms)


def against_the_past(latency: Latency, *about: object, folder: Path | None = None) -> Latency:
    """The latency, noisy where its dense network was over a tenth slower than it usually is on this host.

    `about` is what the dense network's speed depends on. The last `KEPT` sessions are remembered; fewer than `FEWEST`
    say nothing. Agents that end at once may forget a measurement session of each other's, a full disk all.
    """
    name = hashlib.sha256(repr(about).encode()).hexdigest()[:32]
    path = (folder or cache_folder() / FOLDER) / f"{name}.json"
    before, own = _known(path), latency.baseline_p10_ms
    with contextlib.suppress(OSError):
        replace_file(path, json.dumps([*before, own][-KEPT:]).encode())
    slow = len(before) >= FEWEST and own > SLOWER * float(np.percentile(before, 25))
    return replace(latency, noisy=latency.noisy or slow)


def _known(path: Path) -> list[float]:
    """Nothing where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text())
        return [float(each) for each in found]
    except (OSError, ValueError, TypeError):
        return []
