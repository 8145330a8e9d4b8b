"""What a measurement session's dense network is held against: how fast it was on this host before."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunefleet.agent.measure.benchmark import CANDIDATE, MeasurementSession
from prunefleet.agent.measure.pace import KEPT, SESSIONS, against_the_past, in_its_usual_state
from prunefleet.objective.trial import Device, Latency

DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {})
LATENCY = Latency(DEVICE, "f32", 0.5, 0.4, 0.6, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 0.0, 40)


def _at(ms: float) -> Latency:
    return replace(LATENCY, baseline_p10_ms=ms, noisy=False)


def test_a_host_that_is_slow_throughout_is_noisy(tmp_path: Path) -> None:
    """Over a tenth slower than in the faster of its sessions, from the fourth on; what is a little slower is not."""
    told = [against_the_past(_at(ms), "net", folder=tmp_path).noisy for ms in (1.3, 1.0, 1.02, 1.05, 1.2, 1.05)]
    assert told == [False, False, False, False, True, False]


def test_each_network_and_device_has_its_own_past(tmp_path: Path) -> None:
    """Another network, or the same at another precision, is not held against this one's measurement sessions."""
    for _ in range(5):
        against_the_past(_at(1.0), "net", "f32", folder=tmp_path)
    assert not against_the_past(_at(3.0), "net", "int8", folder=tmp_path).noisy
    assert against_the_past(_at(3.0), "net", "f32", folder=tmp_path).noisy


def test_noise_that_was_seen_stays_and_the_rest_of_a_latency_too(tmp_path: Path) -> None:
    """The past adds to what the measurement session itself told, and changes nothing else."""
    noisy = replace(_at(1.0), noisy=True)
    assert against_the_past(noisy, "net", folder=tmp_path) == noisy


def test_a_lasting_change_becomes_usual(tmp_path: Path) -> None:
    """After a new kernel or a slower clock the past follows within its twenty sessions; the file does not grow."""
    told = [against_the_past(_at(1.0 if i < KEPT else 1.5), "net", folder=tmp_path).noisy for i in range(3 * KEPT)]
    assert told[KEPT] and not told[-1]
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())) == KEPT


def test_a_damaged_file_or_a_full_disk_costs_only_the_past(tmp_path: Path) -> None:
    """The latency is reported all the same."""
    for _ in range(4):
        against_the_past(_at(1.0), "net", folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"[1.0, nul")
    assert not against_the_past(_at(3.0), "net", folder=tmp_path).noisy
    (tmp_path / "not a folder").touch()
    assert not against_the_past(_at(1.0), "net", folder=tmp_path / "not a folder").noisy


@pytest.mark.parametrize(
    ("dense_ms", "held", "taken", "noisy"),
    [
        ((1.0,), 1, 1.0, False),
        ((1.5, 1.02), 2, 1.02, False),
        ((1.5, 1.3, 1.4), 3, 1.3, True),
    ],
    ids=["usual", "slow for a while", "slow throughout"],
)
def test_a_candidate_is_measured_again_while_its_host_is_slow(
    dense_ms: tuple[float, ...], held: int, taken: float, noisy: bool, tmp_path: Path
) -> None:
    """The first session at the usual pace counts; where there is none the fastest does, and says that it is noisy."""
    for _ in range(SESSIONS + 3):
        against_the_past(_at(1.0), "net", folder=tmp_path)
    asked = []

    def measure(before: int) -> MeasurementSession:
        asked.append(before)
        return MeasurementSession({CANDIDATE: _at(dense_ms[before])}, {}, {"dense": np.ones(1)}, 4)

    found = in_its_usual_state(measure, "net", folder=tmp_path).latency
    assert asked == list(range(held))
    assert (found.baseline_p10_ms, found.noisy) == (taken, noisy)
