"""`prunefleet measure --poll NAME`: the one host that measures for a device whose server enqueues no runs."""

import multiprocessing
import sys
import threading
from typing import TYPE_CHECKING

from prunefleet.agent.commands.measure import answer
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.tracking.probe import require_server
from prunefleet.objective.devices import device_name
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import TrialFailed

if TYPE_CHECKING:
    from prunefleet.agent.measure.remote.polled_queue import Waiting

LOOK_S, LONGEST_S = 5.0, 60.0
"""Seconds between two looks at what is asked for; longer, up to the second, while the server does not answer."""


def poll(device: str) -> int:
    """Answer what is asked of the device until told to stop; returns the exit code.

    Raises `BadInput` where the project has no such device, or its server enqueues runs: an agent is what its host runs
    there, and two ways at once would measure twice.
    """
    from prunefleet.agent.measure.remote.choice import queue_of
    from prunefleet.agent.measure.remote.device_queue import own_project
    from prunefleet.agent.measure.remote.polled_queue import Polled

    require_server()
    queue = queue_of(own_project(), device_name("--poll", device))
    if not isinstance(queue, Polled):
        raise BadInput("--poll", device, f"this server enqueues runs: start `{queue.how}` on the device's host")
    stop, pause = StopSignal().listen(), LOOK_S
    print(f"{device}: looks for requests in {queue.path}", flush=True)
    while not _told(stop):
        try:
            for found in queue.waiting():
                _measured(queue.project, device, found, stop)
                if _told(stop):
                    break
            pause = LOOK_S
        except BadInput:
            raise
        except Exception as error:  # the client raises many kinds; the server may come back
            print(f"{device}: {' '.join(str(error).split())[:200]}; looks again", file=sys.stderr, flush=True)
            pause = min(2 * pause, LONGEST_S)
        _wait(stop, pause)
    return 0


def _told(stop: StopSignal) -> bool:
    """Whether this process shall end."""
    return stop.signal_name is not None


def _measured(project: str, device: str, found: "Waiting", stop: StopSignal) -> None:
    """Answer one request in a process of its own, as under an agent: a driver that crashes ends that one alone."""
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(project, device, found))
    child.start()
    while child.is_alive() and not _told(stop):
        child.join(0.2)
    if child.is_alive():
        child.terminate()  # it hands its run back
    child.join()


def _serve(project: str, device: str, found: "Waiting") -> None:
    from prunefleet.agent.measure.remote.polled_queue import Polled

    stop = StopSignal().listen()
    entity, _, name = project.partition("/")
    about = dict(found.config)
    try:
        run = tracked_run.start(stop, "measurement", id=found.run, entity=entity, project=name, config=about)
    except TrialFailed as error:
        sys.exit(str(error))
    answer(run, stop, Polled(project, device))


def _wait(stop: StopSignal, seconds: float) -> None:
    """Until the time is over or a signal came."""
    ticking, spent = threading.Event(), 0.0
    while not _told(stop) and spent < seconds:
        ticking.wait(0.2)
        spent += 0.2
