"""What `prunefleet up` shows while it works: a live panel on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

LOG_WIDTH = 130  # a log has no width of its own; rich would take 80 and fold the table
PLAIN_EVERY = 15.0  # seconds between two plain lines about the same phase


class Screen:
    """Shows the phase under way, and the sweep once trials run; `say` prints a line that stays."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
        self._clock, self._said, self._last = clock, float("-inf"), ""
        self._live = Live(Text(""), console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the live panel; what was said stays on the screen."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)
        self._said, self._last = self._clock(), text

    def show(self, phase: str, text: str) -> None:
        """Tell how `phase` stands: at once on a terminal, else when it changed and the last line is old enough."""
        if self.console.is_terminal:
            self._live.update(_panel(phase, text))
        elif text != self._last and self._clock() - self._said >= PLAIN_EVERY:
            self.say(f"{phase}: {text}")
            self._last = text


def _panel(phase: str, text: str) -> Table:
    """One row: the phase and how it stands."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text(phase, style="bold"), Text(text))
    return grid
