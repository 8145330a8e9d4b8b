"""Measuring on a device elsewhere in the fleet: `Elsewhere` measures there as `compare_many` does here.

Networks travel by content: one that the server has is not sent again. A request that was answered, or that waits in
the device's queue already, is not made again. docs/devices.md has the whole way.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from prunefleet.agent.measure.benchmark import DENSE, MeasurementSession, MeasurementSetup
from prunefleet.agent.measure.exported import Exported, content_hash
from prunefleet.agent.measure.remote.device_queue import NETWORKS, Asked, Publisher, Queue
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.measure.samples import read_samples
from prunefleet.agent.tracking.retry import outlasting
from prunefleet.objective import checks
from prunefleet.objective.devices import (
    ANSWER,
    SAMPLES,
    MeasurementAnswer,
    MeasurementProtocol,
    MeasurementRequest,
    NetworkFile,
)
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

T = TypeVar("T")
VARIABLE = "PRUNEFLEET_DEVICE_MINUTES"
PATIENCE_MINUTES = 10.0
LOOK_S = 1.0


def patience_minutes() -> float:
    """How long a device may take to answer: PRUNEFLEET_DEVICE_MINUTES, else ten. Raises `BadInput`."""
    asked = os.environ.get(VARIABLE)
    try:
        return checks.positive(VARIABLE, float(asked)) if asked else PATIENCE_MINUTES
    except ValueError:
        raise BadInput(VARIABLE, asked, "give minutes such as 10") from None


@dataclass
class Elsewhere:
    """A device of the fleet that measures for this process.

    `check` is called while it is waited for and may raise; `note` gets a line about what is waited for.
    """

    queue: Queue
    publisher: Publisher
    check: Callable[[], None] = lambda: None
    note: Callable[[str], None] = lambda text: print(text, flush=True)
    said: MeasurementAnswer | None = None
    _sent: set[str] = field(default_factory=set)
    _measured: dict[tuple[NetworkFile, ...], set[str]] = field(default_factory=dict)
    """The hosts that measured some networks for this process: these are asked for again where a host was noisy."""

    def describe(self, name: str, runner: RemoteRunner, fresh: bool = False) -> MeasurementAnswer:
        """What the device is: as it said last, else, or with `fresh`, as it says now. Raises `TrialFailed`."""
        self.said = None if fresh else self._said_last(runner.device.lower())
        if self.said is None:
            how = MeasurementProtocol(runner.name, runner.threads)
            request = MeasurementRequest(name, protocol=how, nonce=secrets.token_hex(8) if fresh else "")
            self.said = self._answer(request, {})[0]
        return self.said

    def _said_last(self, kind: str) -> MeasurementAnswer | None:
        """The newest answer of a device of that kind that this version can read."""
        return self._heard(lambda: next((answer for answer in self._said() if answer.device.kind == kind), None))

    def _said(self) -> Iterator[MeasurementAnswer]:
        """The last answers that this version can read, newest first."""
        for each in self.queue.said():
            with suppress(BadInput):
                yield MeasurementAnswer.read(each.summary[ANSWER])

    def _avoided(self, request: MeasurementRequest) -> Sequence[str]:
        """The hosts that measured the same networks before, where another one has answered lately.

        Only asked of networks that are measured again, which they are where a host was noisy.
        """
        before = self._measured.get(request.networks, set())
        if not before or not self._heard(lambda: any(each.device.host not in before for each in self._said())):
            return ()
        return sorted(before)

    def __call__(
        self, candidates: Mapping[str, Exported], dense: Exported, setup: MeasurementSetup
    ) -> MeasurementSession:
        """Measure all there in one session. Raises `TrialFailed` with kind DEVICE where it fails or is silent."""
        request, models = self._requested(candidates, dense, setup)
        return self._session([DENSE, *candidates], request, models)

    def ahead(self, candidates: Mapping[str, Exported], dense: Exported, setup: MeasurementSetup) -> None:
        """Ask for a session and do not wait: the same call without `ahead` later finds it under way or answered."""
        self._ask(*self._requested(candidates, dense, setup))

    def _requested(
        self, candidates: Mapping[str, Exported], dense: Exported, setup: MeasurementSetup
    ) -> tuple[MeasurementRequest, dict[str, Exported]]:
        """A measurement session as a request, and its networks by their hash."""
        models = {DENSE: dense, **candidates}
        hashes = {name: content_hash(model.xml) for name, model in models.items()}
        precisions = {name: setup.runner_of(name).precision for name in candidates} | {DENSE: setup.runner.precision}
        files = [NetworkFile(hashes[name], model.input_shape, precisions[name]) for name, model in models.items()]
        expects = self.said.expectations() if self.said else {}
        request = MeasurementRequest(setup.device.name, tuple(files), _protocol(setup), expects)
        return request, {hashes[name]: model for name, model in models.items()}

    def _send(self, models: Mapping[str, Exported]) -> None:
        """Publish the networks that the server has not yet."""
        unsent = [sha256 for sha256 in models if sha256 not in self._sent]
        new = [sha256 for sha256 in unsent if not self._heard(partial(self.queue.holds, sha256))]
        xml = {sha256: models[sha256].xml for sha256 in new}
        files = {each: {"model.xml": xml[each], "model.bin": xml[each].with_suffix(".bin")} for each in new}
        if files:
            self.publisher.offer(NETWORKS, "network", files)
        self._sent |= set(models)

    def _session(
        self, names: list[str], request: MeasurementRequest, models: Mapping[str, Exported]
    ) -> MeasurementSession:
        answer, run, version = self._answer(request, models)
        self._measured.setdefault(request.networks, set()).add(answer.device.host)
        if len(answer.latencies) != len(names):
            raise _failed(f"{request.device} measured {len(answer.latencies)} of {len(names)} networks in run {run}")
        with tempfile.TemporaryDirectory() as folder, _blaming(request.device):
            raw = read_samples(self._heard(partial(self.queue.samples, run, Path(folder), version)))
            own = {name: place_name(place) for place, name in enumerate(names)}
            slots, calls = ({name: kind[key] for name, key in own.items()} for kind in (raw.slots, raw.calls))
        return MeasurementSession(dict(zip(names, answer.latencies, strict=True)), slots, calls, raw.loads)

    def _answer(
        self, request: MeasurementRequest, models: Mapping[str, Exported]
    ) -> tuple[MeasurementAnswer, str, str]:
        """The answer to a request, the run that gave it, and the version of its samples."""
        entry = self._wait(request, self._ask(request, models))
        with _blaming(request.device):
            answer = MeasurementAnswer.read(entry.summary[ANSWER])
            request.refuse_other(answer.device)
        return answer, entry.name, str(entry.summary.get(SAMPLES, "v0"))

    def _ask(self, request: MeasurementRequest, models: Mapping[str, Exported]) -> str:
        """Enqueue a request with its networks unless it was before; returns its run, "" where that is another's.

        Where the server's answer is lost, the queue tells by the key whether the request arrived.
        """
        if self._stands(request):
            return ""
        self._send(models)
        try:
            return self.queue.enqueue(request, self.publisher, self._avoided(request))
        except BadInput:
            raise
        except Exception:
            if not self._stands(request):
                raise
            return ""

    def _stands(self, request: MeasurementRequest) -> bool:
        return any(each.stands for each in self._heard(partial(self.queue.asked, request.key)))

    def _wait(self, request: MeasurementRequest, own: str) -> Asked:
        """The finished run of a request; `own` is the run that this process has enqueued for it."""
        limit = patience_minutes()
        until, told = time.monotonic() + 60 * limit, ""
        while True:
            asked = self._heard(partial(self.queue.asked, request.key), until)
            standing = next((each for each in asked if each.stands), None)
            if standing and standing.answered:
                return standing
            if standing is None and (not own or own in [each.name for each in asked]):
                raise _failed(_what_it_said(request.device, asked))
            state = standing.state if standing else "pending"
            if state != told:
                told = state
                self.note(f"{request.device}: {_DOING.get(state, state)} ({self.queue.path}, {own or 'asked before'})")
            self.check()
            if time.monotonic() > until:
                raise _failed(_silent(request.device, state, limit, self.queue.how))
            time.sleep(LOOK_S)

    def _heard(self, ask: Callable[[], T], until: float | None = None) -> T:
        """What the server answers; one that is away is waited for as long as a device is, else until then."""
        left = 60 * patience_minutes() if until is None else until - time.monotonic()
        return outlasting(ask, left, self.check)


def _protocol(setup: MeasurementSetup) -> MeasurementProtocol:
    asked = setup.runner.settings()
    return MeasurementProtocol(
        runner=asked["runner"],
        threads=int(asked["threads"]),
        time_limit_s=setup.time_limit_s,
        throughput_s=setup.throughput_s,
        loads=setup.loads,
        seed=setup.seed,
        energy=setup.meter.source if setup.meter else None,
    )


_DOING = {"pending": "waits in its queue", "preempted": "waits in its queue again", "running": "measures"}


def place_name(place: int) -> str:
    """What a request's networks are called in its samples: the first is the dense model."""
    return f"candidate{place}" if place else DENSE


def _what_it_said(device: str, asked: Sequence[Asked]) -> str:
    """A failure that the device reported, or that its run ended without an answer."""
    if not asked:
        return f"{device} gave no answer: the request was deleted"
    for each in reversed(asked):
        if message := each.summary.get("failure_message"):
            return f"{device}: {message}"
    return f"{device} gave no answer: run {asked[-1].name} is {asked[-1].state}; look at its log"


def _silent(device: str, state: str, limit: float, how: str) -> str:
    taken = "its agent is still at it" if state in ("running", "preempting") else "no agent has taken the request"
    silent = f"{device} has not answered within {limit:g} min ({VARIABLE}), {taken}"
    return f"{silent}: start `{how}` there, or look at its log; the request stays in the queue"


def _failed(message: str) -> TrialFailed:
    return TrialFailed(Failure(FailureKind.DEVICE, "measure", message))


@contextmanager
def _blaming(device: str) -> Iterator[None]:
    """What cannot be read of a device's answer is the device's failure, not the sweep's bad input."""
    try:
        yield
    except (BadInput, KeyError) as error:
        raise _failed(f"{device}: {error}") from error
