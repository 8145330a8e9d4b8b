"""A trial context for the tiny task, its dense network trained, that measures for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure import device, lock
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.request import from_config

from support.brief import measure_briefly

CONFIG: dict[str, Any] = {"task": "tiny_task:TinyTask", "objective": {"kind": "fastest", "max_drop": 0.05}}


def quickly(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this process measure for a moment, on a host of its own: `folder` has the locks, so nobody is waited for."""
    folder.mkdir(parents=True)
    patch.setattr(lock, "folder", lambda: folder)
    patch.setattr(device, "usable_cores", lambda: 1)
    measure_briefly(patch.setattr)


@contextmanager
def tiny_context(cache: Path, **blocks: Any) -> Iterator[TrialContext]:
    """The context of that configuration; the cache stays this one while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(cache))
        quickly(patch, cache / "host")
        context = prepare(from_config(CONFIG | blocks), None, StageWatch().during)
        yield replace(context, seconds_to_measure=0.2)
