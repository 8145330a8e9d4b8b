"""Asking a device elsewhere, over a queue in this process: what is asked once, what goes wrong, and without torch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb.errors import CommError

from prunefleet.agent.commands.measure import fetched, measured
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import MeasurementSession, MeasurementSetup
from prunefleet.agent.measure.exported import Exported, content_hash, sized
from prunefleet.agent.measure.remote import elsewhere
from prunefleet.agent.measure.remote.device_queue import Asked
from prunefleet.agent.measure.remote.elsewhere import Elsewhere
from prunefleet.agent.measure.remote.stubs import RemoteMeter, RemoteRunner, evaluation_runner
from prunefleet.agent.measure.samples import read_samples
from prunefleet.agent.profile.make import make_profile
from prunefleet.agent.profile.points import Effort
from prunefleet.agent.tracking import retry
from prunefleet.agent.trial.context import space_of
from prunefleet.agent.trial.places import MeasuringPlace
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.objective.devices import MeasurementAnswer, MeasurementRequest
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Candidate, FailureKind, TrialFailed

from support.device import NO_TORCH, ROOT, SHAPE, path, two_networks
from support.queue import Queue, there
from support.trial_context import tiny_context


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Exported]:
    folder = tmp_path_factory.mktemp("networks")
    two_networks(folder)
    half, dense = (sized(folder / f"{name}.xml", "f32", SHAPE) for name in ("half", "dense"))
    return half, dense


def ask(asking: Elsewhere, networks: tuple[Exported, Exported], **more: object) -> MeasurementSession:
    said = asking.describe("board", RemoteRunner())
    setup = MeasurementSetup(RemoteRunner(), said.device, time_limit_s=0.2, throughput_s=0.0, loads=1)
    return asking({"half": networks[0]}, networks[1], replace(setup, **more))  # type: ignore[arg-type]


def test_a_sitting_elsewhere_is_as_one_here(tmp_path: Path, networks: tuple[Exported, Exported]) -> None:
    """Latencies and samples by the candidates' names, the device's channel grid; nothing is sent or asked twice."""
    queue = Queue(tmp_path)
    session = ask(there(queue), networks)
    latency = session.latencies["half"]
    assert latency.ratio < 0.9 and latency.device.name == "board" and latency.device.channel_steps["f32"] in (8, 16)
    assert len(session.slots["half"]) == len(session.slots["dense"]) == latency.n
    again = ask(there(queue), networks)
    assert again.latencies == session.latencies
    assert len(queue.requests) == 2 and [len(each.networks) for each in queue.requests] == [0, 2]
    ask(there(queue), networks, seed=1)
    assert len(queue.requests) == 3


def test_networks_that_are_measured_again_go_to_another_board(
    tmp_path: Path, networks: tuple[Exported, Exported]
) -> None:
    """If one has answered on the queue lately; a board that is alone measures them again itself."""
    queue = Queue(tmp_path)
    alone = there(queue)
    for seed in (0, 1):
        host = ask(alone, networks, seed=seed).latencies["half"].device.host
    assert queue.avoided == [[], [], []]
    other = json.loads((tmp_path / "answer0.json").read_text())
    other["device"]["host"] = "another"
    (tmp_path / "answer0.json").write_text(json.dumps(other))
    ask(alone, networks, seed=2)
    ask(there(queue), networks, seed=3)
    assert queue.avoided[3:] == [[host], []]


def test_a_trial_and_a_plan_are_timed_elsewhere(tmp_path: Path) -> None:
    """Pruned and trained here, on the channel grid of the device that measured; samples come with the trial."""
    queue = Queue(tmp_path)
    asking = there(queue)
    said = asking.describe("board", RemoteRunner())
    device = replace(said.device, channel_steps={"f32": 32})
    with tiny_context(tmp_path / "cache") as here:
        space = space_of(here.groups, [device], "f32")
        context = replace(here, places=(MeasuringPlace(device, RemoteRunner(), measure=asking),), space=space)
        result = run_trial(Candidate({"conv2": 0.4}, epochs=0.25), context, tmp_path / "trial", StageWatch())
        assert isinstance(result, Trial) and result.measurement.kept["conv2"] == 32
        assert result.measurement.worst.device.name == "board"
        assert read_samples(tmp_path / "trial" / "samples.json.gz").slots.keys() == {"dense", "candidate"}
        assert [len(each.networks) for each in queue.requests] == [0, 2]
        effort = Effort(examples=64, levels=1, mixed=1, together=4, session_s=0.2)
        how = (context.task, context.baseline, context.places, "f32", context.goal, tmp_path)
        profile = make_profile(*how, effort=effort)
    assert profile.fingerprint == device and {group.step for group in profile.groups} == {32}
    assert len(queue.requests[-1].networks) == 5 == len(profile.latencies) + 1


def test_a_plan_asks_what_the_device_is_now(tmp_path: Path) -> None:
    """`fresh` is asked each time, while trials take what the device said last."""
    queue = Queue(tmp_path)
    for fresh, requests in ((False, 1), (False, 1), (True, 2), (True, 3), (False, 3)):
        there(queue).describe("board", RemoteRunner(), fresh)
        assert len(queue.requests) == requests


def test_an_answer_that_was_lost_is_not_asked_for_twice(tmp_path: Path, networks: tuple[Exported, Exported]) -> None:
    """The queue is looked at again before anything is enqueued again; what never arrived is the server's failure."""
    queue = Queue(tmp_path)
    queue.lose = 2
    assert ask(there(queue), networks).latencies["half"].ratio < 0.9
    assert len(queue.requests) == 2
    empty = Queue(tmp_path)
    empty.enqueue = lambda request, publisher, avoid=(): (_ for _ in ()).throw(ConnectionError("away"))  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        there(empty).describe("board", RemoteRunner())


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that waits for its device does so while the server cannot be heard, up to the same limit."""
    monkeypatch.setattr(retry, "LOOK_S", 0.01)
    monkeypatch.setattr(retry, "is_away", lambda: True)
    away = [ConnectionError("away"), TimeoutError("busy")]

    def reply(request: MeasurementRequest, number: int) -> Asked:
        if away:
            raise away.pop()
        return queue.served(request, number)

    queue = Queue(tmp_path, reply)
    assert there(queue).describe("board", RemoteRunner()).device.name == "board"
    assert not away and len(queue.requests) == 1
    monkeypatch.setenv("PRUNEFLEET_DEVICE_MINUTES", "0.0001")
    away += [ConnectionError("away")] * 1000
    with pytest.raises(ConnectionError):
        there(queue).describe("board", RemoteRunner(), fresh=True)


@pytest.mark.parametrize("question", ["said", "holds", "asked", "samples"])
def test_every_question_outlasts_a_server_that_is_away(
    tmp_path: Path, networks: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Whatever the trial asks, it asks again; what the server says that it lacks is not waited for."""
    monkeypatch.setattr(retry, "LOOK_S", 0.01)
    monkeypatch.setattr(retry, "is_away", lambda: True)
    queue, failing = Queue(tmp_path), [ConnectionError("away"), TimeoutError("busy")]
    plain = getattr(queue, question)

    def flaky(*args: Any) -> Any:
        if failing:
            raise failing.pop()
        return plain(*args)

    monkeypatch.setattr(queue, question, flaky)
    assert ask(there(queue), networks).latencies["half"].ratio < 0.9
    assert not failing
    failing += [CommError("it is not there", ValueError("it is not there"))] * 2
    with pytest.raises(CommError):
        ask(there(queue), networks, seed=1)
    assert len(failing) == 1


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Asked("run0", "finished", {"failure_message": "CPU refuses the network"}), "board: CPU refuses the network"),
        (Asked("run0", "failed"), "board gave no answer: run run0 is failed; look at its log"),
        (Asked("run0", "finished", {"answer": {"version": 7}}), "answer.version: got 7; bring both hosts"),
        (Asked("run0", "finished", {"answer": {"version": 1}}), "MeasurementAnswer.device"),
    ],
)
def test_a_device_that_fails_is_the_hosts_failure(tmp_path: Path, ending: Asked, words: str) -> None:
    """One line of kind DEVICE, whatever the device said or did not say."""
    with pytest.raises(TrialFailed) as told:
        there(Queue(tmp_path, lambda request, number: ending)).describe("board", RemoteRunner())
    assert told.value.failure.kind is FailureKind.DEVICE and words in told.value.failure.message


@pytest.mark.parametrize(
    ("state", "words"), [("pending", "no agent has taken the request"), ("running", "its agent is still at it")]
)
def test_a_device_that_is_silent_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, words: str
) -> None:
    """After the stated limit the line names the device, what it does and the remedy; the request stays."""
    monkeypatch.setenv("PRUNEFLEET_DEVICE_MINUTES", "0.0001")
    queue = Queue(tmp_path, lambda request, number: Asked("run0", state))
    with pytest.raises(TrialFailed) as told:
        there(queue).describe("board", RemoteRunner())
    message = told.value.failure.message
    assert "board has not answered within 0.0001 min" in message and words in message
    assert "start `wandb agent e/p/s` there" in message and told.value.failure.kind is FailureKind.DEVICE
    monkeypatch.setenv("PRUNEFLEET_DEVICE_MINUTES", "soon")
    with pytest.raises(BadInput, match="PRUNEFLEET_DEVICE_MINUTES: got 'soon'; give minutes such as 10"):
        there(queue).describe("board", RemoteRunner())


def test_a_failure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that failed is made anew by whoever asks next."""
    monkeypatch.setattr(elsewhere, "LOOK_S", 0.0)
    queue = Queue(tmp_path)
    good = queue.served
    queue.reply = lambda request, number: good(request, number) if number else Asked("run0", "failed")
    with pytest.raises(TrialFailed):
        there(queue).describe("board", RemoteRunner())
    assert there(queue).describe("board", RemoteRunner()).device.name == "board"
    assert len(queue.requests) == 2


def test_who_waits_can_be_stopped(tmp_path: Path) -> None:
    """What `check` raises ends the wait; the request stays in the queue for the next attempt."""
    queue = Queue(tmp_path, lambda request, number: Asked("run0", "running"))

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        there(queue, check=stop).describe("board", RemoteRunner())
    assert len(queue.requests) == 1


def test_a_host_refuses_what_it_is_not(tmp_path: Path, networks: tuple[Exported, Exported]) -> None:
    """A request for other hardware, or for a runner that this host has not, is refused before anything is fetched."""
    queue = Queue(tmp_path)
    ask(there(queue), networks)
    request = queue.requests[-1]
    never = lambda sha256: pytest.fail("fetched")  # noqa: E731
    for wrong in (replace(request, expects={"cpu": "another"}), _by(request, runner="openvino_npu")):
        with pytest.raises(BadInput):
            measured(wrong, never, tmp_path / "s", StageWatch())


def _by(request: MeasurementRequest, **how: str) -> MeasurementRequest:
    return replace(request, protocol=replace(request.protocol, **how))  # type: ignore[arg-type]


def test_networks_are_fetched_once_and_checked(
    tmp_path: Path, networks: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host keeps what it fetched; a copy that is damaged is fetched again."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    sha256, fetches = content_hash(networks[0].xml), []

    def fetch(name: str, folder: Path) -> Path:
        fetches.append(name)
        for kind in (".bin", ".xml"):
            (folder / f"{name}{kind}").write_bytes(networks[0].xml.with_suffix(kind).read_bytes())
        return folder / f"{name}.xml"

    first = fetched(sha256, fetch, tmp_path / "none")
    assert fetched(sha256, fetch, tmp_path / "none") == first and len(fetches) == 1
    first.with_suffix(".bin").write_bytes(b"damaged")
    assert content_hash(fetched(sha256, fetch, tmp_path / "none")) == sha256 and len(fetches) == 2


def test_quality_is_judged_here(networks: tuple[Exported, Exported]) -> None:
    """A stand-in loads nothing; this host's processor judges, but not for a program of the user's."""
    with pytest.raises(NotImplementedError):
        RemoteRunner().load(networks[0])
    with pytest.raises(OSError, match="rapl is read on a device elsewhere"):
        RemoteMeter("rapl").reading()
    assert RemoteRunner().at("int8").precision == "f32" and RemoteRunner("openvino_gpu").device == "GPU"
    runner = evaluation_runner(RemoteRunner("openvino_gpu"))
    assert runner is not None and runner.settings()["runner"] == "openvino_cpu"
    assert evaluation_runner(RemoteRunner("command")) is evaluation_runner(RemoteRunner(precision="f8")) is None


MEASURE = f"""{NO_TORCH}
import json
from pathlib import Path
from prunefleet.agent.commands.measure import measured
from prunefleet.agent.host.progress import StageWatch
from prunefleet.objective.devices import MeasurementRequest
import prunefleet.agent.commands.measure, prunefleet.agent.tracking.tracked_run
import prunefleet.agent.measure.remote.device_queue
request = MeasurementRequest.read(json.loads(Path(sys.argv[1]).read_text()))
answer = measured(request, lambda name: Path(sys.argv[2]) / f"{{name}}.xml", Path(sys.argv[2]) / "s.gz", StageWatch())
print(json.dumps(answer.to_json()))
"""


def test_a_whole_measurement_needs_no_torch(tmp_path: Path, networks: tuple[Exported, Exported]) -> None:
    """Where torch, torchvision, torch_pruning and nncf cannot be imported a request is answered all the same."""
    queue = Queue(tmp_path)
    ask(there(queue), networks)
    (tmp_path / "request.json").write_text(json.dumps(queue.requests[-1].to_json()))
    argv = [sys.executable, "-c", MEASURE, str(tmp_path / "request.json"), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path(ROOT)})
    assert done.returncode == 0, done.stderr
    answer = MeasurementAnswer.read(json.loads(done.stdout.splitlines()[-1]))
    assert answer.latencies[1].ratio < 0.9 and "torch" in answer.device.versions
