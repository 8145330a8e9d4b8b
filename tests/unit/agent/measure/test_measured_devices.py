"""Trials and plans on several devices: each is measured, the slowest counts, and nothing is measured twice."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunefleet.agent.answer.winner import choose
from prunefleet.agent.commands.plan import LONG, named_after
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.device import fingerprint
from prunefleet.agent.measure.remote.device_queue import Asked
from prunefleet.agent.measure.remote.stubs import RemoteRunner
from prunefleet.agent.measure.samples import read_samples
from prunefleet.agent.profile.make import make_profile
from prunefleet.agent.profile.points import Effort
from prunefleet.agent.tracking.summary import latencies_words, summary
from prunefleet.agent.trial import places as place
from prunefleet.agent.trial.context import TrialContext, space_of
from prunefleet.agent.trial.latency import CandidateLatency
from prunefleet.agent.trial.places import MeasuringPlace, places_of
from prunefleet.agent.trial.request import from_config
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.agent.trial.stage_cache import Stages
from prunefleet.agent.trial.stages import _training, remembered
from prunefleet.objective.devices import MeasurementRequest
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import score
from prunefleet.objective.trial import Candidate, Latency, Skipped

from support.queue import Queue, there
from support.trial_context import CONFIG, tiny_context

CANDIDATE = Candidate({"conv2": 0.5}, epochs=0.25)


class Slow(Queue):
    """The queue of a device on which pruning saves less: every ratio is half as large again as on this host."""

    def served(self, request: MeasurementRequest, number: int) -> Asked:
        asked = super().served(request, number)
        answer: Any = json.loads(json.dumps(asked.summary["answer"]))
        for latency in answer["latencies"]:
            latency.update({key: 1.5 * latency[key] for key in ("ratio", "ratio_lo", "ratio_hi")}, noisy=False)
        return Asked(asked.name, asked.state, {"answer": answer})


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Slow(tmp_path)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialContext]:
    """A context that measures on this host, with a cache that all these tests share."""
    with tiny_context(tmp_path_factory.mktemp("cache")) as made:
        yield made


@pytest.fixture
def context(here: TrialContext, queue: Queue) -> TrialContext:
    """A context that measures on this host and on a board, whose channels come in steps of 32."""
    asking = there(queue)
    said = asking.describe("board", RemoteRunner())
    device = replace(said.device, channel_steps={"f32": 32})
    places = (*here.places, MeasuringPlace(device, RemoteRunner(), measure=asking))
    return replace(here, places=places, space=space_of(here.groups, [each.device for each in places], "f32"))


def test_a_trial_is_measured_on_every_device(context: TrialContext, queue: Queue, tmp_path: Path) -> None:
    """A latency and samples of each by its name; the slowest device is the one that is scored and told."""
    result = run_trial(CANDIDATE, context, tmp_path / "trial", StageWatch())
    assert isinstance(result, Trial)
    here, board = result.measurement.latencies
    assert (here.device.name, board.device.name) == ("local", "board")
    for latency in (here, board):
        samples = read_samples(tmp_path / "trial" / f"samples-{latency.device.name}.json.gz")
        assert samples.slots.keys() == {"dense", "candidate"}
    assert not (tmp_path / "trial" / "samples.json.gz").exists()
    told = summary(result.measurement, result.score)
    worst = max(here, board, key=lambda each: each.ratio)
    assert told["latency_ratio"] == worst.ratio == told["score_terms"]["latency_ratio"]
    assert {name: each["latency_ratio"] for name, each in told["devices"].items()} == {
        "local": here.ratio,
        "board": board.ratio,
    }
    assert "devices" not in latencies_words([here])


def test_the_grid_pays_on_every_device(context: TrialContext) -> None:
    """Channels come in the least step that is a multiple of each device's own."""
    assert {group.step for group in context.space.groups} == {32}
    odd = [replace(fingerprint(), channel_steps={"f32": step}) for step in (6, 4)]
    assert {group.step for group in space_of(context.groups, odd, "f32").groups} == {12}


def test_devices_elsewhere_measure_meanwhile(context: TrialContext, queue: Queue, tmp_path: Path) -> None:
    """The board has its request before this host begins its own measurement session, and gets no other."""
    before: list[int] = []
    own = context.places[0].measure

    def measure(*args: Any, **how: Any) -> Any:
        before.append(len(queue.requests))
        return own(*args, **how)

    watched: Any = measure
    both = replace(context, places=(replace(context.places[0], measure=watched), context.places[1]))
    CandidateLatency(context.baseline.network, both, 0, tmp_path, StageWatch(), Stages(limit=0)).begin()
    assert before[0] == 2 and len({request.key for request in queue.requests}) == len(queue.requests)


class Late(Queue):
    """The queue of a device that measures for as long as `busy` says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.busy: Callable[[], bool] = lambda: False

    def served(self, request: MeasurementRequest, number: int) -> Asked:
        return Asked(f"run{number}", "running") if self.busy() else super().served(request, number)


def elsewhere_alone(context: TrialContext, queue: Late) -> TrialContext:
    """The context of a sweep that is for a board alone."""
    asking = there(queue)
    return replace(
        context,
        places=(MeasuringPlace(asking.describe("board", RemoteRunner()).device, RemoteRunner(), measure=asking),),
    )


def test_training_begins_while_a_device_elsewhere_measures(context: TrialContext, tmp_path: Path) -> None:
    """Batch norm is estimated anew before the latency is there; it is waited for at the first rung, which is scored."""
    queue, rows = Late(tmp_path / "late"), list[dict[str, float]]()
    queue.folder.mkdir()
    alone = elsewhere_alone(context, queue)
    queue.busy = lambda: not rows
    watch = StageWatch(log=lambda row: rows.append(dict(row)))
    result = run_trial(CANDIDATE, alone, tmp_path / "trial", watch)
    assert isinstance(result, Trial) and result.measurement.worst.device.name == "board"
    assert "val_top1" in rows[0] and "latency_ratio" not in rows[0]
    rungs = [row for row in rows[1:] if "val_top1" in row]
    assert rungs and all("score" in row for row in rungs)
    assert list(watch.seconds).index("recalibrate") < list(watch.seconds).index("parity")


def test_a_candidate_too_slow_for_a_device_elsewhere_ends_at_its_first_rung(
    context: TrialContext, tmp_path: Path
) -> None:
    """Training has begun by then, and what it came to is not kept; the latency is told as of any skipped trial."""
    queue, rows = Late(tmp_path / "late"), list[dict[str, float]]()
    queue.folder.mkdir()
    alone, stages = elsewhere_alone(context, queue), remembered(context, CANDIDATE)
    watch = StageWatch(log=lambda row: rows.append(dict(row)), incumbent=lambda: 0.99)
    result = run_trial(replace(CANDIDATE, epochs=40.0), alone, tmp_path / "trial", watch, stages)
    assert isinstance(result, Skipped) and result.worst.device.name == "board"
    assert rows[0].get("epoch") == 0.0 and max(row.get("epoch", 0.0) for row in rows) < 20.0
    assert stages.recall("train", *_training(alone, replace(CANDIDATE, epochs=40.0))) is None
    assert "export_final" not in watch.seconds


def test_what_one_device_has_measured_is_not_measured_again(
    context: TrialContext, queue: Queue, tmp_path: Path
) -> None:
    """A trial that was interrupted between two devices asks the second alone; one that was done asks nobody."""

    def measured(there: TrialContext, stages: Stages) -> tuple[Latency, ...]:
        latency = CandidateLatency(context.baseline.network, there, 0, tmp_path, StageWatch(), stages)
        latency.begin()
        return latency.per_device

    mine = replace(CANDIDATE, seed=1)  # no other test's, for they share what is remembered
    (here,) = measured(replace(context, places=context.places[:1]), remembered(context, mine))
    asked = len(queue.requests)
    both = measured(context, remembered(context, mine))
    assert both[0] == here and len(queue.requests) > asked
    asked = len(queue.requests)
    for name in ("local", "board"):
        (tmp_path / f"samples-{name}.json.gz").unlink()
    stages = remembered(context, mine)
    assert measured(context, stages) == both and stages.recalled == ["measure", "measure"]
    assert len(queue.requests) == asked
    assert read_samples(tmp_path / "samples-board.json.gz").latency.device.name == "board"


def test_a_candidate_that_is_too_slow_on_one_device_is_not_trained(context: TrialContext, tmp_path: Path) -> None:
    """What this host alone would have trained ends there where the board is too slow to beat the best so far."""
    generous = replace(context, goal=Goal("most_accurate", max_latency_ratio=1.1))
    result = run_trial(Candidate({}, epochs=0.25), generous, tmp_path, StageWatch(incumbent=lambda: 0.5))
    assert isinstance(result, Skipped) and result.worst.device.name == "board" and len(result.latencies) == 2
    assert Skipped.from_json(json.loads(json.dumps(result.to_json()))) == result
    alone = replace(generous, places=context.places[:1])
    assert not isinstance(
        run_trial(Candidate({}, epochs=0), alone, tmp_path, StageWatch(incumbent=lambda: 0.5)), Skipped
    )


def test_a_plan_has_what_each_device_took(context: TrialContext, queue: Queue, tmp_path: Path) -> None:
    """Curves and latencies are the slowest device's, each device's own stand beside; a second plan measures nothing."""
    how = (context.task, context.baseline, context.places, "f32", context.goal, tmp_path)
    effort = Effort(examples=64, levels=1, mixed=1, together=4, session_s=0.2)
    profile = make_profile(*how, effort=effort)
    assert [each.fingerprint.name for each in profile.devices] == ["local", "board"] and profile.fingerprint is None
    profile.refuse_other(*(context.devices[::-1]))
    own = [{json.dumps(kept): ratio for kept, ratio in each.latencies} for each in profile.devices]
    assert {json.dumps(kept): ratio for kept, ratio in profile.latencies} == {
        kept: max(each[kept] for each in own) for kept in own[0]
    }
    curve = profile.curves[0]
    kept = json.dumps({**profile.space.widths, curve.group: curve.kept[0]})
    assert curve.latency_ratio == (max(each[kept] for each in own), 1.0)
    asked = len(queue.requests)
    assert make_profile(*how, effort=effort).latencies == profile.latencies and len(queue.requests) == asked


def test_a_sweep_names_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host comes first, in whatever order they are written; each is looked for, one that is not there refused."""
    request = from_config(CONFIG | {"measure": {"device": ["board", "local"]}})
    assert request.devices == ("board", "local")
    monkeypatch.setattr(place, "_elsewhere", lambda name, *_: MeasuringPlace(fingerprint(name), RemoteRunner()))
    assert [each.device.name for each in places_of(request, None)] == ["local", "board"]
    for wrong in (["board", "board"], [], ["my board"]):
        with pytest.raises(BadInput, match=r"measure\.device: got"):
            from_config(CONFIG | {"measure": {"device": wrong}})
    with pytest.raises(BadInput, match=r"measure\.device: got 'board'; write local, or `upload: \{value: bundles\}`"):
        from_config(CONFIG | {"measure": {"device": ["local", "board"]}, "upload": "metrics"})


def test_a_profile_is_named_after_its_devices() -> None:
    """This host's after its kind, others after the devices, many after their number, so that no name grows too long."""
    assert named_after([fingerprint()]) == "cpu"
    assert named_after([fingerprint(), fingerprint("board")]) == "on-local-board"
    many = [fingerprint(f"board-number-{number}") for number in range(9)]
    assert named_after(many).startswith("on-9-devices-") and len(named_after(many)) < LONG
    assert named_after(many) != named_after(many[::-1])


def test_the_winner_is_the_best_on_its_worst_device() -> None:
    """With a limit in milliseconds a run that keeps it on one device alone does not win."""

    def run(name: str, drop: float, *timed: tuple[float, float]) -> Any:
        devices = {
            f"board{at}": {"latency_ratio": ratio, "baseline_p50_ms": dense} for at, (ratio, dense) in enumerate(timed)
        }
        worst = max(timed)
        told = {"metric_drop": drop, "val_top1": 0.9 - drop, "holdout_top1": 0.9 - drop, "latency_ratio": worst[0]}
        return SimpleNamespace(name=name, config={}, summary={**told, "baseline_p50_ms": worst[1], "devices": devices})

    goal = Goal("most_accurate", max_latency_ms=1.0)
    late, kept = run("late", 0.01, (0.6, 1.0), (0.4, 4.0)), run("kept", 0.02, (0.6, 1.0), (0.2, 4.0))
    assert choose([late, kept], goal, 0.9)[0].name == "kept"
    for each in (late, kept):
        each.summary.pop("devices")
    assert choose([late, kept], goal, 0.9)[0].name == "late"


def test_a_measurement_of_several_devices_is_scored_as_it_is_told(context: TrialContext, tmp_path: Path) -> None:
    """What the server is told is enough to come to the same score again."""
    result = run_trial(CANDIDATE, context, tmp_path, StageWatch())
    assert isinstance(result, Trial)
    assert score(type(result.measurement).from_json(result.measurement.to_json()), context.goal) == result.score
