"""Where the latencies of a sweep are measured: on this host, on a device elsewhere in the fleet, or on several."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunefleet.agent.measure.benchmark import Measure, MeasurementSetup, compare_many
from prunefleet.agent.measure.device import fingerprint
from prunefleet.agent.measure.energy.sources import Meter, find_meter, source_of
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.remote.stubs import RemoteMeter, RemoteRunner
from prunefleet.agent.measure.runners.base import Runner
from prunefleet.agent.measure.runners.registry import kind, runner_at
from prunefleet.agent.tasks.baseline import ArtifactStore
from prunefleet.agent.tracking.retry import outlasting
from prunefleet.agent.trial.request import Request
from prunefleet.objective.devices import LOCAL
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.runners import RUNNERS
from prunefleet.objective.trial import Device, Failure, FailureKind, TrialFailed

if TYPE_CHECKING:
    from prunefleet.agent.measure.remote.elsewhere import Elsewhere

ON = "-on-"
"""In the name of a profile that was measured on a device elsewhere, before the device's."""


@dataclass(frozen=True)
class MeasuringPlace:
    """A device, what runs networks on it, what reads energy there, and how networks are measured together."""

    device: Device
    runner: Runner
    meter: Meter | None = None
    measure: Measure = compare_many

    @property
    def elsewhere(self) -> "Elsewhere | None":
        """What measures on a device elsewhere in the fleet; None on this host."""
        there: Any = self.measure if isinstance(self.runner, RemoteRunner) else None
        return there  # type: ignore[no-any-return]  # loading its module costs a trial the client's public API

    def at(self, precision: str) -> "MeasuringPlace":
        """The same place for networks that ship at another precision."""
        if isinstance(self.runner, RemoteRunner):
            return replace(self, runner=self.runner.at(precision))
        if self.runner.precision == ("f32" if precision == "int8" else precision):
            return self
        how = self.runner.settings()
        return replace(self, runner=runner_at(precision, how["runner"], int(how.get("threads", 1))))

    def energy_source(self, runner: str) -> str | None:
        """The first source of energy that sees `runner` and that can be read there."""
        if self.elsewhere is None:
            return source_of(runner)
        said = self.elsewhere.said
        return next((each for each in RUNNERS[runner].energy if said and each in said.energy_sources), None)


def ask_ahead(
    places: Sequence[MeasuringPlace],
    candidates: Mapping[str, Exported],
    dense: Exported,
    setup: Callable[[MeasuringPlace], MeasurementSetup],
) -> None:
    """Ask the devices elsewhere among several places for a session each, which they hold meanwhile."""
    for place in places if len(places) > 1 else ():
        if place.elsewhere:
            place.elsewhere.ahead(candidates, dense, setup(place))


def places_of(
    request: Request, store: ArtifactStore | None, check: Callable[[], None] = lambda: None, fresh: bool = False
) -> tuple[MeasuringPlace, ...]:
    """The places that a sweep names, this host first; `check` is called while a device elsewhere is waited for, and may
    raise.

    With `fresh` such a device is asked what it is even if it said so before. Raises `BadInput` for one that is not
    there, `TrialFailed` where it does not answer or this host has not what is asked for.
    """
    names = sorted(request.devices, key=lambda name: name != LOCAL)
    places = tuple(
        _here(request) if name == LOCAL else _elsewhere(name, request, store, check, fresh) for name in names
    )
    _check_profile(request, store, [place.device for place in places])
    return places


def _here(request: Request) -> MeasuringPlace:
    """What the sweep could not know: whether this host has the device, the package, the precision."""
    try:
        device, runner = measured_on(request)
    except BadInput as error:
        raise TrialFailed(Failure(FailureKind.DEVICE, "device", str(error))) from error
    return MeasuringPlace(device, runner, find_meter(request.energy))


def measured_on(request: Request) -> tuple[Device, Runner]:
    """This host's device, and what runs networks on it. Raises `BadInput` where the host has not what is asked for."""
    runner = runner_at(request.candidate.precision, request.runner, request.threads)
    return fingerprint(LOCAL, kind(runner)), runner


def _elsewhere(
    name: str, request: Request, store: ArtifactStore | None, check: Callable[[], None], fresh: bool
) -> MeasuringPlace:
    from prunefleet.agent.measure.remote.choice import queue_of
    from prunefleet.agent.measure.remote.device_queue import Publisher
    from prunefleet.agent.measure.remote.elsewhere import Elsewhere, patience_minutes

    opened: object = store
    if not isinstance(opened, Publisher):
        raise BadInput("measure.device", name, "write local where no run is open that could send networks")
    project, limit = opened.project, 60 * patience_minutes()
    there = Elsewhere(outlasting(lambda: queue_of(project, name), limit, check), opened, check)
    runner = RemoteRunner(request.runner, threads=request.threads).at(request.candidate.precision)
    said = there.describe(name, runner, fresh)
    return MeasuringPlace(said.device, runner, RemoteMeter(request.energy) if request.energy else None, there)


def _check_profile(request: Request, store: ArtifactStore | None, devices: Sequence[Device]) -> None:
    """Refuse a profile that was measured elsewhere than trials are; this host's own are not looked at, to save time."""
    here = request.devices == (LOCAL,)
    if request.profile is None or store is None or (here and ON not in request.profile):
        return
    with tempfile.TemporaryDirectory() as folder:
        if store.fetch(request.profile, Path(folder)):
            Profile.load(Path(folder) / "profile.json").refuse_other(*devices)
