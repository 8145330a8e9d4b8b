"""The raw samples of a measurement session as one compact file of gzipped JSON, which any language reads.

`{"version": 1, "loads": n, "networks": {name: {"latency": …, "slots_ms": […], "calls_ms": […]}}}`; `calls_ms` are
rounded to 10 ns. A session's order is kept: round i ran the loads i % `loads`, and a network's calls fall into equal
parts, one a slot.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from prunefleet.agent.measure.benchmark import MeasurementSession
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Latency

VERSION = 1
FILE = "samples.json.gz"
LEVEL = 6  # 9 takes twenty times as long for a twentieth less, and the device's next request waits
DIGITS = 5  # of milliseconds: 10 ns, less than a reading of the clock is worth


def write_samples(session: MeasurementSession, path: Path) -> None:
    """Write the measurement session to `path`; the same measurement session gives the same bytes."""
    networks = {
        name: {
            "latency": latency.to_json(),
            "slots_ms": session.slots[name].tolist(),
            "calls_ms": np.round(session.calls[name], DIGITS).tolist(),
        }
        for name, latency in session.latencies.items()
    }
    document = {"version": VERSION, "loads": session.loads, "networks": networks}
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), LEVEL, mtime=0))


def read_samples(path: Path) -> MeasurementSession:
    """The measurement session that was written to `path`. Raises `BadInput` where the file holds something else."""
    try:
        document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        version, loads, networks = (document[key] for key in ("version", "loads", "networks"))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise BadInput("samples", str(path), f"give a {FILE} of a trial: {error!r}") from None
    if version != VERSION:
        raise BadInput("samples.version", version, f"read it with a prunefleet that knows it; this one knows {VERSION}")
    return MeasurementSession(
        {name: Latency.from_json(each["latency"]) for name, each in networks.items()},
        {name: np.array(each["slots_ms"], np.float64) for name, each in networks.items()},
        {name: np.array(each["calls_ms"], np.float64) for name, each in networks.items()},
        checks.whole("samples.loads", loads, low=1),
    )
