"""Searched parameters beside the ratios that take few values, such as the precision: axes of the grid, with marks.

A mark is a column that is 1 where a trial has one of the values and 0 elsewhere; the value that the profile was made at
has none, so a trial without marks is one that the profile speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunefleet.infra.controller.parameters import Parameter, identity
from prunefleet.objective.profiles.profile import Profile

MOST_VALUES = 6  # more are drawn at random and not modelled: a mark each would be more than few trials can tell
MEASURE, PRECISION = "measure", ("measure", "precision")
SEED = ("recipe", "seed")  # no choice: its values are alike


@dataclass(frozen=True)
class ChoiceAxis:
    """One parameter, its values in the order of the sweep file, and which of them the profile stands for."""

    leaf: Parameter
    values: tuple[Any, ...]
    reference: int

    @property
    def timed(self) -> bool:
        """Whether latency may depend on it; what belongs to the recipe changes the metric alone."""
        return self.leaf.path[0] == MEASURE

    @cached_property
    def marks(self) -> NDArray[np.float64]:
        """The marks [values, values - 1] of each value."""
        return np.delete(np.eye(len(self.values)), self.reference, axis=1)

    @cached_property
    def _levels(self) -> dict[str, int]:
        return {identity(value): level for level, value in enumerate(self.values)}

    def level(self, params: Mapping[str, Any]) -> int | None:
        """Which of the values a trial had; None where it had none of them."""
        return self._levels.get(identity(params.get(self.leaf.name)))

    def marked(self, marks: Sequence[int]) -> int:
        """Which of the values these marks stand for."""
        return next(level for level, row in enumerate(self.marks.astype(int).tolist()) if row == list(marks))


def choices_of(free: Sequence[Parameter], profile: Profile) -> tuple[ChoiceAxis, ...]:
    """The choices among free parameters; those that latency may depend on come first."""
    found = [_choice(leaf, profile) for leaf in free if leaf.path != SEED and _few(leaf)]
    return tuple(sorted(found, key=lambda choice: not choice.timed))


def _few(leaf: Parameter) -> bool:
    levels = leaf.distribution.levels
    return levels is not None and 1 < len({identity(value) for value in levels}) == len(levels) <= MOST_VALUES


def _choice(leaf: Parameter, profile: Profile) -> ChoiceAxis:
    values = tuple(leaf.distribution.levels or ())
    known = leaf.path == PRECISION and profile.precision in values
    return ChoiceAxis(leaf, values, values.index(profile.precision) if known else 0)
