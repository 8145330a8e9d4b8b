"""What the bench of a table says of the drop model and of rungs, on trials whose truth is a formula."""

from typing import Any

import numpy as np
import pytest
from support_pruning import DENSE, GROUPS, Problem
from support_table_drop import FEWEST, foretold, from_rung, told_of, trials_of

PROBLEM = Problem.seeded(0)


def trials(count: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Trials of random candidates of the formula; at its rungs a trial has lost four, three and two times as much."""
    rng = np.random.default_rng(7)
    rows = []
    for place in range(count):
        kept = {group.name: int(rng.integers(group.width // 4, group.width + 1)) for group in GROUPS}
        drop = PROBLEM.drop(kept) + noise * float(rng.normal())
        rungs = [DENSE - times * drop for times in (3.0, 2.0)]
        told = {"recalibrated": DENSE - 4 * drop, "rungs": rungs, "validation": DENSE - drop}
        rows.append({"name": f"c{place:03}", "seed": 0, "kept": kept, **told})
    return rows


def test_the_model_errs_less_the_more_it_is_told() -> None:
    """Its error falls and its intervals hold, on a formula without noise."""
    rows = trials(80)
    early, late = (foretold(PROBLEM.profile(), rows, DENSE, told, 0) for told in (10, 60))
    assert late["rmse"] < early["rmse"] and late["held"] > 0.8 and late["z"] < 1.5


def test_a_rung_that_tells_the_end_leaves_no_error() -> None:
    """A line through the other trials is all that it takes; with noise that the rung does not know, that is left."""
    assert from_rung(trials(40), DENSE, 0) == pytest.approx(0.0, abs=1e-9)
    rows = trials(200)
    for row, miss in zip(rows, np.random.default_rng(1).normal(0, 0.01, 200), strict=True):
        row["validation"] += float(miss)
    assert from_rung(rows, DENSE, 2) == pytest.approx(0.01, rel=0.2)


def test_one_trial_of_each_candidate_counts() -> None:
    """The first seed's, so that a candidate is never both told and foretold."""
    rows = trials(3)
    assert trials_of([rows[0] | {"seed": 2}, *rows, rows[1] | {"seed": 1}]) == rows


def test_the_page_waits_for_enough_trials() -> None:
    """Nothing is said of fewer; of tables from before rungs were noted the model alone is told."""
    assert told_of(PROBLEM.profile(), trials(FEWEST - 1), DENSE, 0.001) == ""
    rows = trials(FEWEST)
    for row in rows:
        row.pop("rungs")
    text = told_of(PROBLEM.profile(), rows, DENSE, 0.001)
    assert "| 80 |" in text and "before fine-tuning" in text and "rungs after it" not in text
    assert "rungs after it" in told_of(PROBLEM.profile(), trials(FEWEST), DENSE, 0.001)
