"""Whether this host can work for one sweep: as it measures, with the code and the data that its other hosts have."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prunefleet.agent.health.finding import OK, PROBLEM, WARNING, Finding
from prunefleet.agent.host.failures import INSTALL
from prunefleet.agent.tracking.tracked_run import Reader, RunRecord
from prunefleet.agent.trial.request import Request, from_sweep
from prunefleet.objective.devices import LOCAL, device_of
from prunefleet.objective.errors import BadInput

VERSIONS = ("openvino", "torch", "torch-pruning")


def sweep(path: str) -> Iterator[Finding]:
    """All that is looked at of the sweep `path`, entity/project/id."""
    try:
        reader = Reader(path)
        if device := device_of(str(reader.config.get("name", ""))):
            yield Finding("sweep", OK, f"{path} is the queue of {device}: this host would measure for it")
            return
        request = from_sweep(reader.config)
    except BadInput as error:
        yield Finding("sweep", PROBLEM, f"{error.field}: got {error.got!r}", error.remedy)
        return
    runs = reader.runs()
    states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(run.state for run in runs).items()))
    yield Finding("sweep", OK, f"{path}: {states or 'no run yet'}")
    yield from _device(request, reader)
    yield from _code_and_data(request, runs)
    yield from _versions(runs)


def _device(request: Request, reader: Reader) -> Iterator[Finding]:
    """Whether what the sweep measures with is here, or known to the project."""
    from prunefleet.agent.measure.remote.choice import queue_of
    from prunefleet.agent.trial.places import measured_on

    for name in request.devices:
        try:
            if name == LOCAL:
                device, runner = measured_on(request)
                found = f"{request.runner} measures at {runner.precision} on {device.cpu}"
            else:
                found = f"{name} takes measurements from {queue_of(reader.project, name).path}"
            yield Finding("measure", OK, found)
        except BadInput as error:
            yield Finding("measure", PROBLEM, f"{error.field}: got {error.got!r}", error.remedy)


def _code_and_data(request: Request, runs: list[RunRecord]) -> Iterator[Finding]:
    """The task's code and data here, beside those that the sweep's runs were made with."""
    try:
        from prunefleet.agent.tasks.code.carried import folder_of, standing
        from prunefleet.agent.tasks.task import data_hash, task_hash
        from prunefleet.agent.trial.context import loaded
    except ImportError as error:
        yield Finding("task", PROBLEM, f"{error}: no trial can run here", INSTALL)
        return
    folder = None
    if request.code:
        try:
            there = standing(request.task, request.code)
        except BadInput as error:
            yield Finding("sweep's code", PROBLEM, f"{error.field}: got {error.got!r}", error.remedy)
            return
        yield Finding("sweep's code", OK, there.told)
        if not there.here:
            return  # nothing is fetched to look at it
        folder = folder_of(there)
    try:
        task = loaded(request, folder)
        own = {"task_hash": task_hash(task), "data_hash": data_hash(task)}
    except Exception as error:  # whatever a task of the user's raises is what a trial would fail of
        yield Finding(
            "task", PROBLEM, " ".join(f"{type(error).__name__}: {error}".split())[:200], "mend it: trials end with this"
        )
        return
    for key, what in (("task_hash", "code"), ("data_hash", "data")):
        theirs = Counter(str(run.config[key]) for run in runs if run.config.get(key) and _comparable(run, key))
        others = sum(count for value, count in theirs.items() if value != own[key])
        if others:
            remedy = f"bring the same {what} here: results of unlike {what} do not compare"
            yield Finding(what, WARNING, f"{own[key][:12]}, and {others} of {theirs.total()} runs had another", remedy)
        else:
            yield Finding(what, OK, f"{own[key][:12]}, as {theirs.total()} runs had")


def _comparable(run: RunRecord, key: str) -> bool:
    """Return whether a run's hash follows today's rule: version 0.1 put its own source into that of the code."""
    return key != "task_hash" or not str(_told(run).get("prunefleet", "")).startswith("0.1.")


def _versions(runs: list[RunRecord]) -> Iterator[Finding]:
    """Software that differs from what other hosts of the sweep run."""
    from prunefleet.agent.measure.device import fingerprint

    own = fingerprint().versions
    for name in VERSIONS:
        theirs = {str(told[name]) for run in runs if (told := _told(run)).get(name)}
        if name in own and theirs - {own[name]}:
            remedy = "bring all hosts of a sweep to one version: latencies and numbers change with it"
            yield Finding(name, WARNING, f"{own[name]} here, {', '.join(sorted(theirs))} elsewhere", remedy)


def _told(run: RunRecord) -> Mapping[str, Any]:
    found = run.config.get("versions")
    return found if isinstance(found, Mapping) else {}
