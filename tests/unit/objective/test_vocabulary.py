"""docs/vocabulary.md names what a run really says."""

import re

import pytest

from prunefleet.agent.tasks.training import Arithmetic
from prunefleet.agent.tracking.summary import FAILURE_KEYS, summary
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import score
from prunefleet.objective.trial import Accuracy, Candidate, Device, Energy, FailureKind, Latency, Measurement, Outcome

from support.paths import ROOT

PAGE = (ROOT / "docs" / "vocabulary.md").read_text()
NAMES = set(re.findall(r"`([a-z_0-9<>]+)`", PAGE))
DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {}, "none")
LATENCY = Latency(
    DEVICE,
    "int8",
    0.5,
    0.4,
    0.6,
    1.0,
    1.1,
    1.2,
    1.3,
    2.0,
    2.1,
    900.0,
    40,
    ratio_f32=0.2,
    energy=Energy(4.0, 8.0, "rapl"),
)
FULL = Measurement(
    Candidate({"a": 0.5}), {"a": 8}, Accuracy("top1", 0.92, 0.9, 0.91, 0.3, 0.5, 0.93), 0.01, (LATENCY,), 1, 2, 3
)
SCORE = score(FULL, Goal())


@pytest.mark.parametrize(
    "key",
    [
        *summary(FULL, SCORE),
        *FAILURE_KEYS,
        "score_bound",
        "incumbent",
        "recalled",
        *Arithmetic().told(),
    ],
)
def test_every_key_of_a_summary_is_documented(key: str) -> None:
    """A key that a trial writes has its row, whatever the metric is called."""
    assert key.replace("top1", "<metric>") in NAMES


@pytest.mark.parametrize("word", [*Outcome, *FailureKind, *SCORE.terms, *DEVICE.to_json()])
def test_every_word_of_a_summary_is_documented(word: str) -> None:
    """Outcomes, kinds of failure, terms of the score and fields of a device stand on the page."""
    assert word in NAMES
