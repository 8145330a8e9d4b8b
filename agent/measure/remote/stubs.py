"""What stands here for a device elsewhere in the fleet: a runner that loads nothing, a meter that reads nothing."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from prunefleet.agent.measure.energy.sources import Joules
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.runners.base import LoadedNetwork, Runner, supported_precisions
from prunefleet.agent.measure.runners.registry import runner_at
from prunefleet.objective.runners import DEFAULT


@dataclass(frozen=True)
class RemoteRunner:
    """The runner called `name` on a device elsewhere: it can be asked for, and loads nothing here."""

    name: str = DEFAULT
    precision: str = "f32"
    threads: int = 1

    @property
    def device(self) -> str:
        """The device's name in its own library."""
        return self.name.rpartition("_")[2].upper()

    def settings(self) -> dict[str, str]:
        """What the device is asked for; what it did is in each latency."""
        return {"runner": self.name, "threads": str(self.threads)}

    def at(self, precision: str) -> "RemoteRunner":
        """The same for networks that ship at another precision; what surrounds INT8's integers is f32."""
        return replace(self, precision="f32" if precision == "int8" else precision)

    def load(self, model: Exported) -> LoadedNetwork:
        """No network can be run here on a device that is elsewhere."""
        raise NotImplementedError(f"{self.name} is elsewhere: {model.xml.name} cannot be loaded here")


def evaluation_runner(runner: Runner) -> Runner | None:
    """Return what evaluates a deployed network here: `runner`, or for one elsewhere this host's processor.

    None where that would not say what the device computes: for a program of the user's, or a precision missing here.
    """
    if not isinstance(runner, RemoteRunner):
        return runner
    if runner.name == "command" or runner.precision not in supported_precisions():
        return None
    return runner_at(runner.precision)


@dataclass(frozen=True)
class RemoteMeter:
    """A source of energy on a device elsewhere, to be named in a request."""

    source: str
    step_s: float = 0.0

    def reading(self) -> AbstractContextManager[Joules]:
        """It cannot be read from here."""
        raise OSError(f"{self.source} is read on a device elsewhere")
