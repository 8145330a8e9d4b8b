"""A bench for the tiny task, its dense network trained, that measures briefly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunefleet.agent.host.progress import Watch
from prunefleet.agent.measure import device
from prunefleet.agent.trial.context import Bench, prepare
from prunefleet.agent.trial.request import from_config

CONFIG: dict[str, Any] = {"task": "tiny_task:TinyTask", "objective": {"kind": "fastest", "max_drop": 0.05}}


@contextmanager
def tiny_bench(cache: Path, **blocks: Any) -> Iterator[Bench]:
    """The bench of that configuration; the cache stays this one while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(cache))
        patch.setattr(device, "usable_cores", lambda: 1)
        bench = prepare(from_config(CONFIG | blocks), None, Watch().during)
        yield replace(bench, seconds_to_measure=0.2)
