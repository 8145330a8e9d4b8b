"""Whether this process was asked to stop, and by whom: the server, or a signal on this host."""

import signal
import threading
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class StopSignal:
    """Remembers a request to stop; the trial looks between its stages and batches, and ends with all data flushed."""

    by_server: threading.Event = field(default_factory=threading.Event)
    signal_name: str | None = None

    def listen(self) -> "StopSignal":
        """Take SIGTERM and Ctrl-C as a request to stop; a second one takes effect at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        return self

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def reason(self) -> str | None:
        """Why to stop, in a few words; None while there is no reason."""
        if self.by_server.is_set():
            return "the server asked the run to stop"
        return f"stopped by {self.signal_name}" if self.signal_name else None
