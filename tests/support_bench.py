"""A bench for the tiny task, its dense network trained, that measures briefly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.bench import Bench, prepare
from agent.measure import device
from agent.request import from_config
from agent.watch import Watch

CONFIG: dict[str, Any] = {"task": "support_tiny_task:TinyTask", "objective": {"kind": "fastest", "max_drop": 0.05}}


@contextmanager
def tiny_bench(cache: Path, **blocks: Any) -> Iterator[Bench]:
    """The bench of that configuration; the cache stays this one while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(cache))
        patch.setattr(device, "usable_cores", lambda: 1)
        bench = prepare(from_config(CONFIG | blocks), None, Watch().during)
        yield replace(bench, seconds_to_measure=0.2)
