"""What many tests of the hub start from; a file with another need of a hub has its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.infra.hub.hub import Hub

from support.hub import Clock, local_hub


@pytest.fixture
def clock() -> Clock:
    """The hub's time, which stands until a test lets it pass."""
    return Clock()


@pytest.fixture
def hub(tmp_path: Path, clock: Clock) -> Iterator[Hub]:
    """A new hub in this process, in the folder `hub` of the test's own."""
    with local_hub(tmp_path / "hub", clock) as hub:
        yield hub
