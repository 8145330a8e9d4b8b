"""`prunefleet measure`: one measurement under `wandb agent` on a device's queue. Needs no torch, only OpenVINO.

A request that cannot be answered (a network that the device refuses, another version) is told in the run's summary and
ends well, so that the agent goes on with the next; what this host did to it hands the run back to the queue.
"""

import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunefleet.agent.host.cache_files import cache_folder, limit_bytes, trim
from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.host.watchdog import Watchdog
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.tracking.summary import stages
from prunefleet.objective import host_outcomes
from prunefleet.objective.devices import (
    ANSWER,
    AVOID,
    DUPLICATE,
    KEY,
    REQUEST,
    SAMPLES,
    MeasurementAnswer,
    MeasurementRequest,
)
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

if TYPE_CHECKING:
    from prunefleet.agent.measure.remote.device_queue import Queue
    from prunefleet.agent.measure.runners.base import Runner

ANSWERED, HANDED_BACK = 0, 1
FOLDER = "networks"
TOLD = (FailureKind.DEVICE, FailureKind.DATA)
SHARE = 0.5
"""Of a trial's patience, what one board may take: the rest is another one's."""
INSTALL = "install what a measuring host needs: pip install 'prunefleet[measure]'"


class LeftToAnother(Exception):
    """This host measured these networks before and was noisy: another board of the kind shall."""


def main() -> int:
    """Answer the request that `wandb agent` gave this process; returns the exit code."""
    stop = StopSignal().listen()
    try:
        run = tracked_run.start(stop)
    except TrialFailed as error:
        print(error, file=sys.stderr)
        return HANDED_BACK
    return answer(run, stop, None)


def answer(run: tracked_run.TrackedRun, stop: StopSignal, queue: "Queue | None") -> int:
    """Answer the request in the configuration of an open run, and end the run; returns the exit code.

    `queue` is where the request came from; None for the run's own sweep.
    """
    watch = StageWatch(stop=stop.reason)
    try:
        _serve(run, watch, queue)
        code = ANSWERED
    except BadInput as error:
        print(f"{watch.stage}: {error}", file=sys.stderr)
        run.refused(error, watch.stage)
        code = ANSWERED
    except LeftToAnother as error:
        print(error)
        run.failed(Failure(FailureKind.DEVICE, watch.stage, str(error)), watch.seconds)
        run.finish(HANDED_BACK, again=True)
        return ANSWERED  # this host did nothing wrong: its agent gives up on a queue where runs fail
    except Exception as error:
        code = _failed(run, watch, stop, error)
    run.finish(code, again=code == HANDED_BACK)
    return code


def _failed(run: tracked_run.TrackedRun, watch: StageWatch, stop: StopSignal, error: Exception) -> int:
    """Tell a failure in one line, and whether it is to be tried again."""
    if isinstance(error, ModuleNotFoundError):
        failure = Failure(FailureKind.DEVICE, watch.stage, f"{error}: {INSTALL}")
    else:
        failure = explain(error, watch.stage)
    if failure.kind is FailureKind.UNKNOWN or "PRUNEFLEET_DEBUG" in os.environ:
        traceback.print_exception(error)
    print(f"{failure.stage}: {failure.kind.value}: {failure.message}", file=sys.stderr)
    run.failed(failure, watch.seconds)
    host_outcomes.note(run.name, failure)
    return ANSWERED if failure.kind in TOLD or stop.by_server.is_set() else HANDED_BACK


def _serve(run: tracked_run.TrackedRun, watch: StageWatch, queue: "Queue | None") -> None:
    with watch.during("request"):
        config = run.config
        request = MeasurementRequest.read(config.get(REQUEST))
    with watch.during("imports"):
        from prunefleet.agent.measure.reference import told
        from prunefleet.agent.measure.remote import device_queue
        from prunefleet.agent.measure.samples import FILE
    queue = queue or run.outlasting(lambda: device_queue.Queue(run.project, run.sweep or ""))
    if twin := run.outlasting(partial(_elder, queue, str(config.get(KEY)), run.name)):
        print(f"run {twin} has this very request")
        run.summarise({DUPLICATE: twin})
        return
    _leave(config.get(AVOID), run)
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, limited(run, watch):
        samples = Path(folder) / FILE

        def fetch(sha256: str, into: Path) -> Path:
            return run.outlasting(partial(queue.fetch, sha256, into))

        answer = measured(request, lambda sha256: fetched(sha256, fetch, Path(folder)), samples, watch)
        run.note({"device": answer.device.to_json(), "host": answer.device.host})
        with watch.during("reference"):
            found |= told(next(iter(_runners(request).values())))
        with watch.during("publish"):
            if samples.exists():
                name, about = device_queue.samples_name(run.name), {KEY: config.get(KEY)}
                found[SAMPLES] = run.publish(name, "samples", [samples], about)
    for place, latency in enumerate(answer.latencies):
        print(f"network {place}: latency ratio {latency.ratio:.3f}, {latency.p10_ms:.3f} ms")
    run.answered({ANSWER: answer.to_json(), **found, **stages(watch.seconds)})
    host_outcomes.note(run.name)
    if (networks := cache_folder() / FOLDER).is_dir():
        trim(networks, limit_bytes())


def _leave(avoid: object, run: tracked_run.TrackedRun) -> None:
    """Raise `LeftToAnother` where this host is to be avoided, once: a run that comes back has no other host."""
    host = platform.node()
    if isinstance(avoid, list) and host in avoid and not run.told().get("failure_kind"):
        raise LeftToAnother(f"{host} measured these networks before and was noisy: left to another board for once")


@contextmanager
def limited(run: tracked_run.TrackedRun, watch: StageWatch) -> Iterator[None]:
    """Hand back a run that hangs, with its process, while whoever asked has the patience for another board."""
    from prunefleet.agent.measure.remote.elsewhere import VARIABLE, patience_minutes

    minutes = SHARE * patience_minutes()

    def bark() -> None:
        why = f"{platform.node()} was not done within {minutes:g} min, half of {VARIABLE}: it hangs, or is kept busy"
        failure = Failure(FailureKind.TIMEOUT, watch.stage, why)
        print(f"{failure.stage}: {failure.kind.value}: {failure.message}", file=sys.stderr)
        run.failed(failure, watch.seconds)
        host_outcomes.note(run.name, failure)
        run.finish(HANDED_BACK, again=True)

    dog = Watchdog(time.monotonic() + 60 * minutes, bark)
    dog.start()
    try:
        yield
    finally:
        dog.call_off()


def _elder(queue: "Queue", key: str, name: str) -> str | None:
    """The run that had the same request before this one and has answered it or will: nothing is measured twice."""
    for each in queue.asked(key):
        if each.name == name:
            return None
        if each.stands:
            return each.name
    return None


def measured(
    request: MeasurementRequest, fetch: Callable[[str], Path], samples: Path, watch: StageWatch
) -> MeasurementAnswer:
    """Measure what `request` asks for on this host, samples to the file `samples`; `fetch` gives a network's `.xml`.

    Raises `BadInput` where this host has not what is asked for, `TrialFailed` where the device refuses a network.
    """
    from prunefleet.agent.measure.benchmark import MeasurementSetup, compare_many
    from prunefleet.agent.measure.device import described
    from prunefleet.agent.measure.energy.sources import METERS, find_meter
    from prunefleet.agent.measure.exported import sized
    from prunefleet.agent.measure.remote.elsewhere import place_name
    from prunefleet.agent.measure.runners.registry import kind
    from prunefleet.agent.measure.samples import write_samples

    how, networks = request.protocol, request.networks
    runners = _runners(request)
    first = runners[networks[0].precision] if networks else runners["f32"]
    device = described(request.device, kind(first))
    request.refuse_other(device)
    sources = tuple(source for source in METERS if find_meter(source))
    if not networks:
        return MeasurementAnswer(device, sources)
    with watch.during("fetch"):
        models = [sized(fetch(each.sha256), each.precision, each.input_shape) for each in networks]
    names = [place_name(place) for place in range(len(networks))]
    with watch.during("measure"):
        setup = MeasurementSetup(
            runner=first,
            runners={name: runners[each.precision] for name, each in zip(names[1:], networks[1:], strict=True)},
            device=device,
            meter=find_meter(how.energy),
            time_limit_s=how.time_limit_s,
            throughput_s=how.throughput_s,
            loads=how.loads,
            seed=how.seed,
        )
        session = compare_many(dict(zip(names[1:], models[1:], strict=True)), models[0], setup)
    write_samples(session, samples)
    return MeasurementAnswer(device, sources, tuple(session.latencies[name] for name in names))


def _runners(request: MeasurementRequest) -> Mapping[str, "Runner"]:
    """What runs the networks, by the precision that a request gives for each."""
    from prunefleet.agent.measure.runners.registry import at_default, runner_at

    how = request.protocol
    precisions = {each.precision for each in request.networks} or {"f32"}
    plain = {each: runner_at("f32" if each == "default" else each, how.runner, how.threads) for each in precisions}
    return {each: at_default(runner) if each == "default" else runner for each, runner in plain.items()}


def fetched(sha256: str, fetch: Callable[[str, Path], Path], folder: Path) -> Path:
    """A network's `.xml`: this host's copy if its content is right, else what `fetch` gets, kept for the next request.

    With PRUNEFLEET_CACHE_MB=0 nothing is kept, and it lies in `folder`.
    """
    from prunefleet.agent.measure.exported import content_hash

    limit = limit_bytes()
    kept = cache_folder() / FOLDER if limit else folder
    xml = kept / f"{sha256}.xml"
    if xml.is_file() and xml.with_suffix(".bin").is_file() and content_hash(xml) == sha256:
        for part in (xml, xml.with_suffix(".bin")):
            os.utime(part)  # used last
        return xml
    kept.mkdir(parents=True, exist_ok=True)
    return fetch(sha256, kept)
