"""What the bench of a table says of the drop model and of starts, on trials whose truth is a formula."""

from typing import Any

import numpy as np
import pytest

from studies.table.drop import FEWEST, foretold, from_start, told_of, trials_of
from support.controller import DENSE, GROUPS, Problem

PROBLEM = Problem.seeded(0)


def trials(count: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Trials of random candidates of the formula; before fine-tuning each has lost four times as much."""
    rng = np.random.default_rng(7)
    rows = []
    for place in range(count):
        kept = {group.name: int(rng.integers(group.width // 4, group.width + 1)) for group in GROUPS}
        drop = PROBLEM.drop(kept) + noise * float(rng.normal())
        told = {"recalibrated": DENSE - 4 * drop, "validation": DENSE - drop}
        rows.append({"name": f"c{place:03}", "seed": 0, "kept": kept, **told})
    return rows


def test_the_model_errs_less_the_more_it_is_told() -> None:
    """Its error falls and its intervals hold, on a formula without noise."""
    rows = trials(80)
    early, late = (foretold(PROBLEM.profile(), rows, DENSE, told, 0) for told in (10, 60))
    assert late["rmse"] < early["rmse"] and late["held"] > 0.8 and late["z"] < 1.5


def test_a_start_that_tells_the_end_leaves_no_error() -> None:
    """A line through the other trials is all that it takes; with noise that the start does not know, that is left."""
    assert from_start(trials(40), DENSE) == pytest.approx(0.0, abs=1e-9)
    rows = trials(200)
    for row, miss in zip(rows, np.random.default_rng(1).normal(0, 0.01, 200), strict=True):
        row["validation"] += float(miss)
    assert from_start(rows, DENSE) == pytest.approx(0.01, rel=0.2)


def test_one_trial_of_each_candidate_counts() -> None:
    """The first seed's, so that a candidate is never both told and foretold."""
    rows = trials(3)
    assert trials_of([rows[0] | {"seed": 2}, *rows, rows[1] | {"seed": 1}]) == rows


def test_the_page_waits_for_enough_trials() -> None:
    """Nothing is said of fewer."""
    assert told_of(PROBLEM.profile(), trials(FEWEST - 1), DENSE, 0.001) == ""
    text = told_of(PROBLEM.profile(), trials(FEWEST), DENSE, 0.001)
    assert "| 80 |" in text and "with an\nerror of 0.00%" in text
