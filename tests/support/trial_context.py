"""A trial context for the tiny task, its dense network trained, that measures briefly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure import device
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.request import from_config

CONFIG: dict[str, Any] = {"task": "tiny_task:TinyTask", "objective": {"kind": "fastest", "max_drop": 0.05}}


@contextmanager
def tiny_context(cache: Path, **blocks: Any) -> Iterator[TrialContext]:
    """The context of that configuration; the cache stays this one while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(cache))
        patch.setattr(device, "usable_cores", lambda: 1)
        context = prepare(from_config(CONFIG | blocks), None, StageWatch().during)
        yield replace(context, seconds_to_measure=0.2)
