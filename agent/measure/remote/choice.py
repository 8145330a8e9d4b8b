"""Which way a device elsewhere is asked on this server."""

from prunefleet.agent.measure.remote.device_queue import Queue, can_enqueue, devices
from prunefleet.agent.measure.remote.polled_queue import Polled
from prunefleet.objective.errors import BadInput


def queue_of(project: str, device: str) -> Queue:
    """The queue of a device, or its requests where the server enqueues no runs.

    Raises `BadInput` for a device that the project has not, with those that it has.
    """
    known = devices(project)
    if device in known and can_enqueue():
        return Queue(project, known[device])
    if device in known:
        return Polled(project, device)
    there = f"write local or one of {', '.join(sorted(known))}" if known else "write local: there is no other yet"
    raise BadInput("measure.device", device, f"{there}; `prunefleet device add {device}` makes it known in {project}")
