"""What commands that run for minutes share: a watch that a stop reaches, and lines of progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.host.stop import StopSignal
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import TrialFailed


class CommandWatch(StageWatch):
    """A watch for a command: what stops it, `stopper`, also ends the command's runs."""

    def __init__(self) -> None:
        self.stopper = StopSignal().listen()
        super().__init__(stop=self.stopper.reason)


@contextmanager
def watching() -> Iterator[CommandWatch]:
    """Give a watch; exceptions inside become `TrialFailed` with the stage, bad input stays bad input."""
    watch = CommandWatch()
    try:
        yield watch
    except BadInput:
        raise
    except Exception as error:
        raise TrialFailed(explain(error, watch.stage)) from error


def print_progress(phase: str, done: int, total: int, text: str) -> None:
    """Print one line of progress."""
    print(f"progress {phase} {done}/{total} {text}", flush=True)
