"""`prunefleet trial`: one trial under `wandb agent`, from its configuration to its exit code."""

import inspect
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from prunefleet.agent.host.cache_files import bundle_folder, new_folder
from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import TOO_LONG, StageWatch
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.host.watchdog import GRACE_S, Watchdog
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.trial.request import from_config
from prunefleet.objective import host_outcomes
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, Skipped, TrialFailed

if TYPE_CHECKING:
    from prunefleet.agent.tasks.task import Task
    from prunefleet.agent.trial.context import TrialContext
    from prunefleet.agent.trial.run import Trial
    from prunefleet.agent.trial.stage_cache import Stages


@dataclass(frozen=True)
class Ending:
    """How the process ends: 0 an answer, 1 this host's failure, 2 bad input; `again` hands the run back."""

    code: int
    again: bool = False


PREFIX = "prunefleet-trial-"
ANSWERED, TRY_AGAIN, WRONG_SWEEP = Ending(0), Ending(1, again=True), Ending(2)


def main() -> int:
    """Run the trial that `wandb agent` gave this process; returns the exit code.

    The run is opened before torch is imported, so that the server knows at once and a stop is heard meanwhile.
    """
    stop = StopSignal().listen()
    try:
        run = tracked_run.start(stop)
    except TrialFailed as error:
        print(error, file=sys.stderr)
        return TRY_AGAIN.code
    watch = StageWatch(log=run.log, stop=stop.reason, incumbent=run.incumbent)
    ending = _trial(run, watch, stop)
    run.finish(ending.code, ending.again)
    return ending.code


def _trial(run: tracked_run.TrackedRun, watch: StageWatch, stop: StopSignal) -> Ending:
    try:
        result = _result(run, watch)
    except Exception as error:
        try:
            return _failed(run, watch, stop, explain(error, watch.stage), error)
        except BadInput as wrong:
            print(f"{watch.stage}: {wrong}", file=sys.stderr)
            run.refused(wrong, watch.stage)
            return WRONG_SWEEP
    if isinstance(result, Skipped):
        run.skipped(result, watch.seconds)
        host_outcomes.note(run.name)
        best = f"scores at most {result.bound:.4f}, {result.incumbent:.4f} is reached"
        print(f"skipped: latency ratio {result.worst.ratio:.3f} {best}")
        return ANSWERED
    run.scored(result.measurement, result.score, watch.seconds)
    host_outcomes.note(run.name)
    accuracy, latency = result.measurement.accuracy, result.measurement.worst
    print(f"score {result.score.value:.4f}: {accuracy.metric} {accuracy.val:.4f}, latency ratio {latency.ratio:.3f}")
    return ANSWERED


def _result(run: tracked_run.TrackedRun, watch: StageWatch) -> "Trial | Skipped":
    """The trial with its files published, or word that it cannot win; raises whatever a stage raises."""
    request = from_config(run.config)
    with watch.during("imports"):
        from prunefleet.agent.trial.context import prepare
        from prunefleet.agent.trial.run import run_trial
        from prunefleet.agent.trial.stages import remembered
    context = prepare(request, run, watch.during, lambda share, text: watch.rung({"dense_done": share}), watch.check)
    with watch.during("groups"):
        run.note(told(context) | {"kept": context.space.kept(request.candidate.ratios)})
    with watch.during("reference"):
        run.summarise(own_speed(context))
    with own_folder() as folder:
        with limited(request.timeout_minutes, run, watch):
            stages = remembered(context, request.candidate)
            result = run_trial(request.candidate, context, folder, watch, stages)
        run.summarise(noticed(context, stages))
        if isinstance(result, Failure):
            raise TrialFailed(result)
        if isinstance(result, Skipped):
            return result
        with watch.during("publish"):
            publish(run, result, folder, request.upload, context.task)
    return result


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder for this process; those of trials that were killed, and so could not remove theirs, go."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)  # another user's stays
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


@contextmanager
def limited(minutes: float | None, run: tracked_run.TrackedRun, watch: StageWatch) -> Iterator[None]:
    """Give the block so many minutes; one that hangs is ended with its process, and the run handed back.

    What comes after it has all the time: a server that is away for an hour must not cost what is found.
    """
    if minutes is None:
        yield
        return
    watch.deadline = time.monotonic() + 60 * minutes

    def bark() -> None:
        failure = Failure(FailureKind.TIMEOUT, watch.stage, f"{TOO_LONG} and hangs")
        print(f"{failure.stage}: {failure.kind.value}: {failure.message}", file=sys.stderr)
        run.failed(failure, watch.seconds)
        host_outcomes.note(run.name, failure)
        run.finish(TRY_AGAIN.code, TRY_AGAIN.again)

    dog = Watchdog(watch.deadline + GRACE_S, bark)
    dog.start()
    try:
        yield
    finally:
        dog.call_off()
        watch.deadline = math.inf


def told(context: "TrialContext") -> dict[str, object]:
    """What the agent adds to a run's configuration: where it runs, and which code, data and dense model it has."""
    from prunefleet.agent.tasks.task import data_hash, task_hash

    first, *more = (device.to_json() for device in context.devices)
    return {
        "device": first,
        **({"devices": [first, *more]} if more else {}),
        "host": platform.node(),
        "task_hash": task_hash(context.task),
        "data_hash": data_hash(context.task),
        "baseline_hash": context.baseline.sha256,
        "versions": {**context.devices[0].versions, **_own_version()},
    }


def _own_version() -> dict[str, str]:
    """This host's prunefleet: it ran the trial, whoever measured."""
    try:
        return {"prunefleet": metadata.version("prunefleet")}
    except metadata.PackageNotFoundError:  # run from its sources
        return {}


def own_speed(context: "TrialContext") -> dict[str, object]:
    """How fast the reference network is on this host, where it measures itself."""
    from prunefleet.agent.measure.reference import told

    here = next((place.runner for place in context.places if place.elsewhere is None), None)
    return told(here) if here else {}


def noticed(context: "TrialContext", stages: "Stages") -> dict[str, object]:
    """What was found out on the way: the arithmetic that trains faster here, the parts that were not done anew."""
    from prunefleet.agent.tasks.training import arithmetic

    how = arithmetic(context.task.name)
    return {**(how.told() if how else {}), **({"recalled": stages.recalled} if stages.recalled else {})}


def publish(run: tracked_run.TrackedRun, result: "Trial", folder: Path, upload: str, task: "Task") -> None:
    """Log the candidate's files as artifact `candidate-<run>`: nothing in it is a pickle.

    Where the sweep uploads metrics alone they stay in this host's cache; with `upload: all` the task's source goes too.
    """
    from prunefleet.agent.compress import bundle

    files = bundle.write(folder, result.network, result.measurement.kept)
    measured = {"measurement": result.measurement.to_json(), "score": result.score.to_json()}
    documents = {"benchmark": measured, "parity": {"max_difference": result.parity}}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1))
    files += [folder / f"{name}.json" for name in documents]
    files += [result.exported.xml, result.exported.xml.with_suffix(".bin")]
    files += sorted(folder.glob("samples*.json.gz"))
    if upload == "all" and (source := inspect.getsourcefile(type(task))):
        files.append(Path(shutil.copy(source, folder / "task.py")))
    if upload == "metrics":
        with new_folder(bundle_folder(run.name)) as kept:
            for file in files:
                shutil.copy(file, kept)
    else:
        run.publish(f"candidate-{run.name}", "candidate", files, {"kept": result.measurement.kept})


def _failed(
    run: tracked_run.TrackedRun, watch: StageWatch, stop: StopSignal, failure: Failure, error: Exception
) -> Ending:
    """Tell a failure in one line; only a fault that nobody foresaw shows where it came from."""
    if failure.kind is FailureKind.UNKNOWN or "PRUNEFLEET_DEBUG" in os.environ:
        traceback.print_exception(error)
    print(f"{failure.stage}: {failure.kind.value}: {failure.message}", file=sys.stderr)
    run.failed(failure, watch.seconds)
    host_outcomes.note(run.name, failure)
    stopped = failure.kind is FailureKind.INTERRUPTED and stop.by_server.is_set()
    return TRY_AGAIN if failure.kind.blames_host and not stopped else ANSWERED
