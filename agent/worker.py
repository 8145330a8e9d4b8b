"""`prunefleet trial`: one trial under `wandb agent`, from its configuration to its exit code."""

import json
import os
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import report
from agent.failures import explain
from agent.request import from_config
from agent.stop import Stop
from agent.watch import Watch
from objective.errors import BadInput
from objective.trial import Failure, FailureKind, TrialFailed

if TYPE_CHECKING:
    from agent.trial import Bench, Trial


@dataclass(frozen=True)
class Ending:
    """How the process ends: 0 an answer, 1 this host's failure, 2 bad input; `again` hands the run back."""

    code: int
    again: bool = False


ANSWERED, TRY_AGAIN, WRONG_SWEEP = Ending(0), Ending(1, again=True), Ending(2)


def main() -> int:
    """Run the trial that `wandb agent` gave this process; returns the exit code.

    The run is opened before torch is imported, so that the server knows at once and a stop is heard meanwhile.
    """
    stop = Stop().listen()
    try:
        session = report.start(stop)
    except TrialFailed as error:
        print(error, file=sys.stderr)
        return TRY_AGAIN.code
    watch = Watch(log=session.log, stop=stop.reason)
    ending = _trial(session, watch, stop)
    session.finish(ending.code, ending.again)
    return ending.code


def _trial(session: report.Session, watch: Watch, stop: Stop) -> Ending:
    try:
        result = _result(session, watch)
    except Exception as error:
        try:
            return _failed(session, watch, stop, explain(error, watch.stage), error)
        except BadInput as wrong:
            print(f"{watch.stage}: {wrong}", file=sys.stderr)
            session.refused(wrong, watch.stage)
            return WRONG_SWEEP
    session.scored(result.measurement, result.score, watch.seconds)
    accuracy, latency = result.measurement.accuracy, result.measurement.worst
    print(f"score {result.score.value:.4f}: {accuracy.metric} {accuracy.val:.4f}, latency ratio {latency.ratio:.3f}")
    return ANSWERED


def _result(session: report.Session, watch: Watch) -> "Trial":
    """The trial with its files published; raises whatever a stage raises."""
    request = from_config(session.config)
    with watch.during("imports"):
        from agent.bench import prepare
        from agent.trial import run_trial
    bench = prepare(request, session, watch.during, lambda share, text: watch.rung({"dense_done": share}))
    with watch.during("groups"):
        session.note(told(bench) | {"kept": bench.space.kept(request.candidate.ratios)})
    with tempfile.TemporaryDirectory(prefix="prunefleet-trial-") as folder:
        result = run_trial(request.candidate, bench, Path(folder), watch)
        if isinstance(result, Failure):
            raise TrialFailed(result)
        with watch.during("publish"):
            publish(session, result, Path(folder))
    return result


def told(bench: "Bench") -> dict[str, object]:
    """What the agent adds to a run's configuration: where it runs, and which code, data and dense model it has."""
    from agent.tasks.task import data_hash, task_hash

    return {
        "device": bench.device.to_json(),
        "host": bench.device.host,
        "task_hash": task_hash(bench.task),
        "data_hash": data_hash(bench.task),
        "baseline_hash": bench.baseline.sha256,
        "versions": dict(bench.device.versions),
    }


def publish(session: report.Session, result: "Trial", folder: Path) -> str:
    """Log the candidate's files as artifact `candidate-<run>`: nothing in it is a pickle."""
    from agent.compress import bundle
    from agent.measure.samples import FILE as SAMPLES

    files = bundle.write(folder, result.network, result.measurement.kept)
    measured = {"measurement": result.measurement.to_json(), "score": result.score.to_json()}
    documents = {"benchmark": measured, "parity": {"max_difference": result.parity}}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1))
    files += [folder / f"{name}.json" for name in documents]
    files += [result.exported.xml, result.exported.xml.with_suffix(".bin"), folder / SAMPLES]
    return session.publish(f"candidate-{session.name}", "candidate", files, {"kept": result.measurement.kept})


def _failed(session: report.Session, watch: Watch, stop: Stop, failure: Failure, error: Exception) -> Ending:
    """Tell a failure in one line; only a fault that nobody foresaw shows where it came from."""
    if failure.kind is FailureKind.UNKNOWN or "PRUNEFLEET_DEBUG" in os.environ:
        traceback.print_exception(error)
    print(f"{failure.stage}: {failure.kind.value}: {failure.message}", file=sys.stderr)
    session.failed(failure, watch.seconds)
    stopped = failure.kind is FailureKind.INTERRUPTED and stop.by_server.is_set()
    return TRY_AGAIN if failure.kind.blames_host and not stopped else ANSWERED
