"""`prunefleet measure` on an edge host: how its run ends, whatever is asked of it; and which place a sweep names."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunefleet.agent.commands import measure
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.measure.device import described, fingerprint
from prunefleet.agent.measure.remote import device_queue
from prunefleet.agent.measure.remote.device_queue import Asked
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.trial import places
from prunefleet.agent.trial.places import places_of
from prunefleet.agent.trial.request import Request, from_config
from prunefleet.objective.devices import MeasurementAnswer, MeasurementRequest
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, Profile
from prunefleet.objective.profiles.space import GroupSpec
from prunefleet.objective.trial import Candidate, Failure, FailureKind, TrialFailed

ASKED = MeasurementRequest("board")
CONFIG: dict[str, Any] = {"request": ASKED.to_json(), "key": ASKED.key}


class TrackedRun:
    """A run in this process that remembers what it was told."""

    name, project, sweep = "mine", "e/p", "s"

    def outlasting(self, ask: Callable[[], Any]) -> Any:
        return ask()

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.summary, self.noted = config, dict[str, Any](), dict[str, Any]()
        self.ended: tuple[int, bool] | None = None

    def note(self, values: dict[str, Any]) -> None:
        self.noted |= values

    def summarise(self, values: dict[str, Any]) -> None:
        self.summary |= values

    def answered(self, values: dict[str, Any]) -> None:
        self.summary = {key: each for key, each in self.summary.items() if not key.startswith("failure")} | values

    def told(self) -> dict[str, Any]:
        return dict(self.summary)

    def refused(self, error: BadInput, stage: str) -> None:
        self.summary |= {"failure_kind": "bad_input", "failure_message": str(error)}

    def failed(self, failure: Failure, seconds: dict[str, float]) -> None:
        self.summary |= {"failure_kind": failure.kind.value, "failure_message": failure.message}

    def finish(self, code: int, again: bool = False) -> None:
        self.ended = code, again


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., TrackedRun]]:
    """Runs the command for a configuration; `before` are requests with its key that are older than it."""
    monkeypatch.setattr(StopSignal, "listen", lambda self: self)
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))

    def run(
        config: dict[str, Any] = CONFIG,
        before: tuple[Asked, ...] = (),
        stop: str | None = None,
        told: dict[str, Any] | None = None,
        code: int | None = None,
    ) -> TrackedRun:
        run = TrackedRun(config)
        run.summary |= told or {}

        class Queue:
            def __init__(self, project: str, name: str) -> None: ...

            def asked(self, key: str) -> list[Asked]:
                return [*before, Asked("mine", "running")]

        def start(stopper: StopSignal) -> TrackedRun:
            stopper.signal_name = stop
            return run

        monkeypatch.setattr(tracked_run, "start", start)
        monkeypatch.setattr(device_queue, "Queue", Queue)
        assert measure.main() == ((run.ended or (None,))[0] if code is None else code)
        return run

    yield run


def test_a_host_says_what_it_is(serve: Callable[..., TrackedRun]) -> None:
    """Asked for no network it describes itself: fingerprint, channel grid, readable sources of energy."""
    run = serve()
    assert run.ended == (0, False)
    answer = MeasurementAnswer.read(run.summary["answer"])
    assert answer.device == described("board") and answer.device.channel_steps["f32"] in (8, 16)
    assert run.noted["device"]["name"] == "board"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "request: got None; give a mapping"),
        ({"request": ASKED.to_json() | {"version": 9}, "key": "k"}, "request.version: got 9"),
        ({"request": replace(ASKED, expects={"cpu": "another"}).to_json(), "key": "k"}, "device.cpu: got"),
    ],
)
def test_a_request_that_cannot_be_met_ends_well(
    serve: Callable[..., TrackedRun], config: dict[str, Any], words: str
) -> None:
    """It is told in the run, whose exit code is 0: an agent that saw failures would give up on the whole queue."""
    run = serve(config)
    assert run.ended == (0, False)
    assert run.summary["failure_kind"] == "bad_input" and words in run.summary["failure_message"]


@pytest.mark.parametrize(
    ("kind", "ended"),
    [
        (FailureKind.DEVICE, (0, False)),
        (FailureKind.DATA, (0, False)),
        (FailureKind.DISK_FULL, (1, True)),
        (FailureKind.OUT_OF_MEMORY, (1, True)),
        (FailureKind.SERVER, (1, True)),
    ],
)
def test_what_the_host_did_is_handed_back(
    serve: Callable[..., TrackedRun], monkeypatch: pytest.MonkeyPatch, kind: FailureKind, ended: tuple[int, bool]
) -> None:
    """What the network or the device did is an answer; what befell the host is tried again."""

    def fail(*about: object) -> None:
        raise TrialFailed(Failure(kind, "measure", "why"))

    monkeypatch.setattr(measure, "measured", fail)
    run = serve()
    assert run.ended == ended and run.summary["failure_kind"] == kind.value


def test_a_stopped_host_hands_the_request_back(serve: Callable[..., TrackedRun]) -> None:
    """SIGTERM before the measurement: the run goes to the queue again."""
    run = serve(stop="SIGTERM")
    assert run.ended == (1, True) and run.summary["failure_kind"] == "interrupted"


@pytest.mark.parametrize(
    ("before", "twin"),
    [
        (Asked("old", "finished", {"answer": {}}), "old"),
        (Asked("old", "running"), "old"),
        (Asked("old", "finished", {"failure_kind": "device"}), None),
        (Asked("old", "crashed"), None),
    ],
)
def test_a_request_that_another_run_has_is_not_measured(
    serve: Callable[..., TrackedRun], before: Asked, twin: str | None
) -> None:
    """The younger of two says whose request it repeats, unless the older one came to nothing."""
    run = serve(before=(before,))
    assert run.ended == (0, False)
    assert run.summary.get("duplicate_of") == twin and ("answer" in run.summary) == (twin is None)


def test_a_board_that_was_noisy_leaves_a_request_to_another_once(serve: Callable[..., TrackedRun]) -> None:
    """The run goes back to the queue and its agent goes on; when it comes back, or at another host, it is measured."""
    mine, other = CONFIG | {"avoid": [platform.node()]}, CONFIG | {"avoid": ["elsewhere"]}
    left = serve(mine, code=0)
    assert left.ended == (1, True) and "left to another board" in left.summary["failure_message"]
    back = serve(mine, told=left.summary)
    assert back.ended == (0, False) and "answer" in back.summary and "failure_message" not in back.summary
    assert "answer" in serve(other).summary


class Store:
    """Artifacts of a project: one profile."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.fetches = profile, 0

    def fetch(self, name: str, folder: Path) -> bool:
        self.fetches += 1
        self.profile.save(folder / "profile.json")
        return True

    def publish(self, name: str, kind: str, files: object, metadata: object) -> str:
        raise AssertionError("nothing is published")


def made_on(name: str) -> Profile:
    curves = (Curve("a", (8, 16), (0.5, 0.9), (0.7, 1.0)),)
    device = fingerprint(name)
    return Profile("t", "n", "b", "cpu", "f32", (GroupSpec("a", 16, 8),), "top1", 0.9, curves, fingerprint=device)


def test_a_local_sweep_refuses_a_plan_of_a_device_elsewhere() -> None:
    """A profile whose name says it is of another device is looked at; this host's own cost no request."""
    request = Request("t", Candidate({}), Goal(), profile="profile-t-on-board-f32:v0")
    with pytest.raises(BadInput, match=r"profile: got 'measured on board .*trials are measured on local"):
        places_of(request, Store(made_on("board")))
    own = Store(made_on("local"))
    assert places_of(replace(request, profile="profile-t-cpu-f32:v0"), own)[0].measure is places.compare_many
    assert own.fetches == 0


def test_a_device_elsewhere_needs_an_open_run() -> None:
    """Networks are sent by a run: where there is none the sweep is refused in one line."""
    request = from_config({"task": "t", "measure": {"device": "board"}})
    with pytest.raises(BadInput, match=r"measure\.device: got 'board'; write local where no run is open"):
        places_of(request, None)
