"""What a sweep's search has to say beside its suggestions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Advice:
    """The run that the models expect most of, what they expect of it, and why the search knows less than it could.

    `expected` has `score`, and `drop` and `latency_ratio` with 90 % intervals, as a suggestion's `why`, and `devices`
    where there are several.
    """

    trial: str | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
