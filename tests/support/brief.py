"""Measurements that last a moment, for tests that ask what is done with a latency and not how exact it is."""

from collections.abc import Callable
from typing import Any

from prunefleet.agent.measure import pace, rounds
from prunefleet.agent.measure.benchmark import MeasurementSetup

LIMITS = {"time_limit_s": 0.2, "throughput_s": 0.02, "loads": 1}
"""At most; what a test asks for below these stays."""


def measure_briefly(put: Callable[[Any, str, Any], object] = setattr) -> None:
    """Let this process measure networks once and for a moment, however noisy the host; `put` sets each attribute.

    How exact a measurement is, and what a noisy host is given, is asked in tests/unit/agent/measure.
    """
    whole = MeasurementSetup.__init__

    def brief(self: MeasurementSetup, *given: Any, **named: Any) -> None:
        whole(self, *given, **named)
        for name, most in LIMITS.items():
            object.__setattr__(self, name, min(getattr(self, name), most))

    put(MeasurementSetup, "__init__", brief)
    put(pace, "SESSIONS", 1)
    put(rounds, "PATIENCE", 1.0)
