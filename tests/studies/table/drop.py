"""How well the controller's drop model foretells the table's trials, and what a trial's start tells of its end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunefleet.infra.controller.models.accuracy import drop_model
from prunefleet.objective.profiles.profile import Profile

Rows = Sequence[Mapping[str, Any]]
Floats = NDArray[np.float64]
TOLD = (10, 20, 40, 80)
"""Trials that a sweep has early, and when it ends."""
DRAWS = 10
FEWEST = 2 * max(TOLD)


def trials_of(rows: Rows) -> Rows:
    """One trial of each candidate, the first seed's."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        first.setdefault(row["name"], row)
    return list(first.values())


def foretold(profile: Profile, rows: Rows, dense: float, told: int, seed: int) -> dict[str, float]:
    """What the model makes of trials that it was not told of, it knows the curves and `told` trials drawn by `seed`.

    `rmse` of the drop, a fraction; `held`: how often 90 % intervals hold; `z`: the root mean square of the errors over
    their standard deviations, 1 where the model is as sure as it should be.
    """
    names = [group.name for group in profile.groups]
    order = np.random.default_rng(seed).permutation(len(rows))
    kept = np.array([[rows[place]["kept"][name] for name in names] for place in order], dtype=float)
    drops = np.array([dense - rows[place]["validation"] for place in order])
    model = drop_model(profile, kept[:told], drops[:told])
    band = model.predict(kept[told:])
    error = model._squeeze(drops[told:]) - band.mean
    z = error / np.hypot(band.std, model.noise)
    expected = model.sample(band, np.zeros((1, 1)))[0]
    return {
        "rmse": _rms(expected - drops[told:]),
        "held": float(np.mean(np.abs(z) <= 1.645)),
        "z": _rms(z),
        "let_go": float(model.let_go),
    }


def from_start(rows: Rows, dense: float) -> float:
    """Error of the drop, root mean square, foretold for each trial by a line through others' recalibrated metric."""
    at = np.array([dense - row["recalibrated"] for row in rows])
    end = np.array([dense - row["validation"] for row in rows])
    columns = np.stack([np.ones(len(at)), at], axis=1)
    hat = columns @ np.linalg.pinv(columns)
    return _rms((end - hat @ end) / (1 - np.diag(hat)))  # the error with the trial itself left out


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def told_of(profile: Profile, rows: Rows, dense: float, noise: float) -> str:
    """A section of the page; nothing while there are too few trials."""
    trials = trials_of(rows)
    if len(trials) < FEWEST:
        return ""
    lines = []
    for told in TOLD:
        found = [foretold(profile, trials, dense, told, seed) for seed in range(DRAWS)]
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        lines.append(f"| {told} | {mean['rmse']:.2%} | {mean['held']:.0%} | {mean['z']:.2f} | {mean['let_go']:.0%} |")
    table = "\n".join(lines)
    return f"""\
**The controller's drop model**, told the profile's curves and some of the trials, foretells the other trials
({len(trials)} in all, {DRAWS} draws); seeds of one candidate differ by {noise:.2%} (standard deviation, part of the
errors here). The last but one column is 1 where the model is as sure as it should be.

| trials told | error, root mean square | 90 % intervals that hold | errors over their deviations | curves let go |
|---|---|---|---|---|
{table}

**Before fine-tuning**: a line through the other trials foretells a trial's drop from its metric as recalibrated with an
error of {from_start(trials, dense):.2%} ({len(trials)} trials, one left out at a time).
"""
