"""Where the latencies of a sweep are measured: on this host, or on a device elsewhere in the fleet."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.measure.benchmark import Sit, compare_many
from agent.measure.choice import kind, runner_at
from agent.measure.device import fingerprint
from agent.measure.energy import Meter, find_meter
from agent.measure.runners import Runner
from agent.request import Request
from agent.tasks.baseline import Store
from objective.devices import LOCAL
from objective.errors import BadInput
from objective.profile import Profile
from objective.trial import Device, Failure, FailureKind, TrialFailed

ON = "-on-"
"""In the name of a profile that was measured on a device elsewhere, before the device's."""


@dataclass(frozen=True)
class Place:
    """A device, what runs networks on it, what reads energy there, and how networks are measured together."""

    device: Device
    runner: Runner
    meter: Meter | None
    sit: Sit = compare_many


def place_of(
    request: Request, store: Store | None, check: Callable[[], None] = lambda: None, fresh: bool = False
) -> Place:
    """The place that a sweep names; `check` is called while a device elsewhere is waited for, and may raise.

    With `fresh` such a device is asked what it is even if it said so before. Raises `BadInput` for one that is not
    there, `TrialFailed` where it does not answer or this host has not what is asked for.
    """
    place = _here(request) if request.device == LOCAL else _elsewhere(request, store, check, fresh)
    _check_profile(request, store, place.device)
    return place


def _here(request: Request) -> Place:
    """What the sweep could not know: whether this host has the device, the package, the precision."""
    try:
        device, runner = measured_on(request)
    except BadInput as error:
        raise TrialFailed(Failure(FailureKind.DEVICE, "device", str(error))) from error
    return Place(device, runner, find_meter(request.energy))


def measured_on(request: Request) -> tuple[Device, Runner]:
    """This host's device, and what runs networks on it. Raises `BadInput` where the host has not what is asked for."""
    runner = runner_at(request.candidate.precision, request.runner, request.threads)
    return fingerprint(request.device, kind(runner)), runner


def _elsewhere(request: Request, store: Store | None, check: Callable[[], None], fresh: bool) -> Place:
    from agent.measure.elsewhere import Elsewhere, Publisher
    from agent.measure.remote import queue_of
    from agent.measure.stand_ins import RemoteMeter, RemoteRunner

    opened: object = store
    if not isinstance(opened, Publisher):
        raise BadInput("measure.device", request.device, "write local where no run is open that could send networks")
    there = Elsewhere(queue_of(opened.project, request.device), opened, check)
    runner = RemoteRunner(request.runner, threads=request.threads).at(request.candidate.precision)
    said = there.describe(request.device, runner, fresh)
    return Place(said.device, runner, RemoteMeter(request.energy) if request.energy else None, there)


def _check_profile(request: Request, store: Store | None, device: Device) -> None:
    """Refuse a profile that was measured elsewhere than trials are; this host's own are not looked at, to save time."""
    if request.profile is None or store is None or (request.device == LOCAL and ON not in request.profile):
        return
    with tempfile.TemporaryDirectory() as folder:
        if store.fetch(request.profile, Path(folder)):
            Profile.load(Path(folder) / "profile.json").refuse_other(device)
