"""The raw samples of a measurement session as a file."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunefleet.agent.measure.benchmark import MeasurementSession
from prunefleet.agent.measure.samples import read_samples, write_samples
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Conditions, Device, Latency

DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {})
LATENCY = Latency(DEVICE, "f32", 0.5, 0.4, 0.6, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 900.0, 40, before=Conditions(load=0.5))


def session(rounds: int = 40, calls: int = 20) -> MeasurementSession:
    """Two networks with made-up times of about a tenth of a millisecond."""
    random = np.random.default_rng(0)
    times = {name: random.lognormal(-2, 0.1, (rounds, calls)) for name in ("dense", "candidate")}
    slots = {name: np.percentile(each, 10, axis=1) for name, each in times.items()}
    return MeasurementSession(
        {"dense": replace(LATENCY, ratio=1.0, ratio_lo=1.0, ratio_hi=1.0), "candidate": LATENCY},
        slots,
        {name: each.ravel() for name, each in times.items()},
        4,
    )


def test_samples_survive_their_file(tmp_path: Path) -> None:
    """Latencies and slots come back as they were, calls to 10 ns; the same measurement session gives the same bytes."""
    whole = session()
    for name in ("a", "b"):
        write_samples(whole, tmp_path / name)
    back = read_samples(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert back.latencies == whole.latencies and back.latency == LATENCY and back.loads == 4
    for name in whole.slots:
        assert np.array_equal(back.slots[name], whole.slots[name])
        assert np.allclose(back.calls[name], whole.calls[name], rtol=0, atol=0.5e-5)
    assert back.interval_ms("candidate") == whole.interval_ms("candidate")


def test_the_file_is_small_and_runs_nothing(tmp_path: Path) -> None:
    """Less than four bytes a call, and any program can read it: it is JSON."""
    write_samples(session(400, 30), tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert len(content) < 4 * 2 * 400 * 30 + 20_000
    document = json.loads(gzip.decompress(content))
    assert document["version"] == 1 and len(document["networks"]["dense"]["calls_ms"]) == 12_000


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"no json"), gzip.compress(b"[1]"), gzip.compress(b'{"version": 1}'), b"\x1f\x8b\x08"],
    ids=["no gzip", "no JSON", "no object", "no samples", "cut off"],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    """Whatever it holds: bad input with its name."""
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(BadInput, match=r"samples: got '.*other'") as caught:
        read_samples(tmp_path / "other")
    assert "\n" not in str(caught.value)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """Its version is named."""
    (tmp_path / "newer").write_bytes(gzip.compress(b'{"version": 2, "loads": 1, "networks": {}}'))
    with pytest.raises(BadInput, match=r"samples\.version: got 2"):
        read_samples(tmp_path / "newer")
