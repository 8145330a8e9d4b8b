"""One trial: what it measures, and how each thing that can go wrong is told."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_task import TinyTask
from torch import nn

from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure import device
from prunefleet.agent.measure.samples import read_samples
from prunefleet.agent.tracking.summary import summary
from prunefleet.agent.trial import context as bench_module
from prunefleet.agent.trial.context import prepare
from prunefleet.agent.trial.request import from_config
from prunefleet.agent.trial.run import Trial, TrialContext, run_trial
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.score import values
from prunefleet.objective.trial import Candidate, Failure, FailureKind, Skipped, TrialFailed

from support.trial_context import CONFIG, tiny_context

STAGES = ["prune", "export", "measure", "recalibrate", "train", "export_final", "parity", "evaluate"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialContext]:
    """A context for the tiny task, its dense network trained, measured briefly."""
    with tiny_context(tmp_path_factory.mktemp("cache")) as made:
        yield made


def _run(
    context: TrialContext, tmp_path: Path, watch: StageWatch | None = None, **ratios: float
) -> Trial | Skipped | Failure:
    return run_trial(Candidate(ratios, epochs=0.5), context, tmp_path, watch or StageWatch())


def test_a_candidate_comes_to_a_score(context: TrialContext, tmp_path: Path) -> None:
    """A pruned network keeps the channels asked for, is measured against the dense one, trained and scored."""
    rows: list[dict[str, float]] = []
    watch = StageWatch(log=lambda row: rows.append(dict(row)))
    result = _run(context, tmp_path, watch, conv2=0.5)
    assert isinstance(result, Trial)
    measured = result.measurement
    assert measured.kept == {"conv1": 64, "conv2": 32, "conv3": 64}
    assert measured.params < sum(each.numel() for each in context.baseline.network.parameters())
    assert measured.accuracy.val > 0.9 and measured.accuracy.holdout is not None and measured.accuracy.test is None
    assert measured.metric_drop == pytest.approx(context.baseline.metrics["validation"]["top1"] - measured.accuracy.val)
    assert measured.worst.ratio_lo <= measured.worst.ratio <= measured.worst.ratio_hi
    assert result.score.feasible and result.parity < 1e-4 and result.exported.xml.exists()
    assert list(watch.seconds) == STAGES
    assert [row["epoch"] for row in rows] == sorted(row["epoch"] for row in rows) and "val_top1" in rows[0]


def test_channels_are_chosen_as_the_candidate_says(context: TrialContext, tmp_path: Path) -> None:
    """Taylor importance goes through the task's own training, and a filter ranking keeps other channels than L2's."""
    stems = []
    for how in ({}, {"importance": "taylor", "ranking": "filter"}):
        result = run_trial(Candidate({"conv1": 0.5}, epochs=0, **how), context, tmp_path, StageWatch())
        assert isinstance(result, Trial) and result.measurement.kept["conv1"] == 32
        stems.append(result.network.get_parameter("conv1.weight"))
    assert not torch.equal(*stems)


def test_a_trial_tells_energy_with_its_source(context: TrialContext, tmp_path: Path) -> None:
    """Candidate and dense network are read by the sweep's own meter, and what was timed is kept."""

    class Meter:
        source, step_s = "rapl", 0.001

        @contextmanager
        def reading(self) -> Iterator[Callable[[], float]]:
            yield time.perf_counter  # as if the processor took one watt

    result = _run(replace(context, places=(replace(context.places[0], meter=Meter()),)), tmp_path, conv1=0.5)
    assert isinstance(result, Trial)
    energy = result.measurement.worst.energy
    assert energy is not None and energy.source == "rapl" and energy.mj > 0 and energy.baseline_mj > 0
    told = summary(result.measurement, result.score)
    assert (told["energy_mj"], told["energy_source"]) == (energy.mj, "rapl")
    assert read_samples(tmp_path / "samples.json.gz").latency == result.measurement.worst


def test_the_samples_tell_that_the_host_was_slow(
    context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latency that is noisy beside the host's earlier sessions is so in the file of its samples as well."""
    monkeypatch.setattr(
        "prunefleet.agent.measure.pace.against_the_past", lambda latency, *_, **__: replace(latency, noisy=True)
    )
    result = _run(context, tmp_path, conv1=0.5)
    assert isinstance(result, Trial)
    assert result.measurement.worst.noisy
    assert read_samples(tmp_path / "samples.json.gz").latency == result.measurement.worst


def test_a_candidate_that_is_too_slow_to_win_is_not_trained(context: TrialContext, tmp_path: Path) -> None:
    """Where the best so far is out of reach at its latency it ends before training, its latency measured."""
    asked: list[str] = []

    def incumbent() -> float:
        asked.append("now")
        return 0.99

    watch = StageWatch(incumbent=incumbent)
    result = _run(context, tmp_path, watch, conv2=0.5)
    assert isinstance(result, Skipped) and result.incumbent == 0.99 > result.bound
    assert result.kept == {"conv1": 64, "conv2": 32, "conv3": 64} and result.worst.ratio > 0
    assert list(watch.seconds) == STAGES[:3] and asked == ["now"]
    assert Skipped.from_json(result.to_json()) == result


@pytest.mark.parametrize("incumbent", [None, 0.0])
def test_a_candidate_that_may_still_win_is_trained(
    context: TrialContext, tmp_path: Path, incumbent: float | None
) -> None:
    """Without a best so far, or with one that it may beat, nothing is skipped."""
    assert isinstance(_run(context, tmp_path, StageWatch(incumbent=lambda: incumbent), conv2=0.5), Trial)


def test_nothing_is_skipped_where_the_sweep_says_so(context: TrialContext, tmp_path: Path) -> None:
    """With `recipe.skip: false`, and for the whole front of accuracy against latency, every candidate is trained."""
    for changed in (replace(context, skip=False), replace(context, goal=replace(context.goal, kind="pareto"))):
        assert isinstance(_run(changed, tmp_path, StageWatch(incumbent=lambda: 0.99)), Trial)


def test_every_rung_has_a_score(context: TrialContext, tmp_path: Path) -> None:
    """Rows with the validation metric say what they would come to, so that early termination can judge them."""
    rows: list[dict[str, float]] = []
    result = run_trial(Candidate({}, epochs=2.0), context, tmp_path, StageWatch(log=lambda row: rows.append(dict(row))))
    assert isinstance(result, Trial)
    rungs = [row for row in rows if "train_loss" in row and "val_top1" in row]
    assert len(rungs) == context.task.rungs - 1 and all("score" in row for row in rungs)
    assert [row for row in rows if "score" in row] == rungs
    last = rungs[-1]
    drop = context.baseline.metrics["validation"]["top1"] - last["val_top1"]
    ratio = result.measurement.worst.ratio
    assert last["score"] == pytest.approx(float(values(last["val_top1"], drop, ratio, context.goal)))


def test_the_dense_network_is_not_touched(context: TrialContext, tmp_path: Path) -> None:
    """After a trial the dense network has the quality it had."""
    _run(context, tmp_path, conv1=0.75, conv3=0.5)
    assert context.task.evaluate(context.baseline.network, "validation") == context.baseline.metrics["validation"]


def test_an_unknown_group_is_the_sweeps_fault(context: TrialContext, tmp_path: Path) -> None:
    """No failure of a trial: bad input, which names the group and those there are."""
    with pytest.raises(BadInput, match=r"ratio\.conv9.*conv1, conv2, conv3"):
        _run(context, tmp_path, conv9=0.5)
    with pytest.raises(BadInput, match=r"objective\.metric: got 'top7'"):
        _run(replace(context, goal=replace(context.goal, metric="top7")), tmp_path)


def test_a_stop_between_stages_is_an_interruption(context: TrialContext, tmp_path: Path) -> None:
    """The stage under way ends, the next does not begin; the failure is the host's and says who asked."""
    asked: list[str] = []
    watch = StageWatch(log=lambda row: asked.append("now"), stop=lambda: "stopped by SIGTERM" if asked else None)
    result = _run(context, tmp_path, watch)
    assert isinstance(result, Failure) and result.kind is FailureKind.INTERRUPTED and result.kind.blames_host
    assert (result.stage, result.message) == ("train", "stopped by SIGTERM")


def test_a_stop_in_training_ends_it_soon(context: TrialContext, tmp_path: Path) -> None:
    """Training hears of a stop at its next report, and the trial ends without evaluating."""
    rows: list[object] = []
    watch = StageWatch(log=rows.append, stop=lambda: "the server asked" if len(rows) > 1 else None)
    result = run_trial(Candidate({}, epochs=20), context, tmp_path, watch)
    assert isinstance(result, Failure) and result.stage == "train" and len(rows) == 2
    assert "evaluate" not in watch.seconds


def test_a_loss_that_is_not_finite_is_the_candidates(
    context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that blows up ends as diverged, which teaches the controller."""
    monkeypatch.setattr(TinyTask, "lr", 1e30)
    result = _run(context, tmp_path)
    assert isinstance(result, Failure) and result.kind is FailureKind.DIVERGED and result.teaches


@pytest.mark.parametrize(
    ("stage", "error", "kind"),
    [
        ("export", OSError(errno.ENOSPC, "No space left on device"), FailureKind.DISK_FULL),
        ("train", OSError(errno.EDQUOT, "Disk quota exceeded"), FailureKind.DISK_FULL),
        ("train", MemoryError(), FailureKind.OUT_OF_MEMORY),
        ("train", RuntimeError("DefaultCPUAllocator: can't allocate memory: tried 9 bytes"), FailureKind.OUT_OF_MEMORY),
        ("measure", RuntimeError("CUDA out of memory. Tried to allocate"), FailureKind.OUT_OF_MEMORY),
        ("measure", RuntimeError("Exception from src/inference: device lost"), FailureKind.DEVICE),
        ("train", RuntimeError("CUDA error: an illegal memory access was encountered"), FailureKind.DEVICE),
        ("evaluate", RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp: gone"), FailureKind.DEVICE),
        ("train", TrialFailed(Failure(FailureKind.TIMEOUT, "train", "too long")), FailureKind.TIMEOUT),
        ("data", BadInput("data", "x.gz", "replace this file"), FailureKind.DATA),
        ("baseline", BadInput("baseline", "abc", "run plan again"), FailureKind.DATA),
        ("prune", BadInput("kept.a", 0, "keep 1 to 8"), FailureKind.INFEASIBLE),
        ("publish", ConnectionResetError("Connection lost"), FailureKind.SERVER),
        ("imports", ModuleNotFoundError("No module named 'torch'"), FailureKind.UNKNOWN),
        ("train", ZeroDivisionError("division by zero"), FailureKind.UNKNOWN),
        ("train", TrialFailed(Failure(FailureKind.DIVERGED, "train", "loss nan")), FailureKind.DIVERGED),
    ],
)
def test_every_error_has_its_kind(stage: str, error: Exception, kind: FailureKind) -> None:
    """An error becomes a failure of the right kind, at its stage, in one line."""
    failure = explain(error, stage)
    assert failure.kind is kind and failure.stage == stage and "\n" not in failure.message and failure.message


def test_bad_input_elsewhere_is_raised_again() -> None:
    """Bad input in a stage that neither host nor candidate is to blame for stays bad input."""
    with pytest.raises(BadInput):
        explain(BadInput("network", "conv", "make it run"), "groups")


def test_an_error_in_a_stage_becomes_a_failure(
    context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage raises is returned as a value with the stage's name."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench_module, "export", full)
    result = _run(context, tmp_path)
    assert isinstance(result, Failure) and (result.kind, result.stage) == (FailureKind.DISK_FULL, "export")


def test_the_dense_export_is_made_once(context: TrialContext) -> None:
    """The context keeps the dense network's export in the cache, complete."""
    assert context.dense.xml.exists() and context.dense.xml.with_suffix(".bin").exists()
    assert context.dense.size_bytes > 0 and context.dense.network is context.baseline.network


def test_a_dense_network_that_cannot_be_exported_as_it_is_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a trial is measured against it: here the trace that is exported doubles what torch computes."""
    made = TinyTask.network

    def restless(task: TinyTask) -> nn.Module:
        network = made(task)
        network.register_forward_hook(lambda module, given, output: output * (1 + torch.jit.is_tracing()))
        return network

    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    monkeypatch.setattr(device, "usable_cores", lambda: 1)
    monkeypatch.setattr(TinyTask, "network", restless)
    with pytest.raises(TrialFailed, match="exported model differs from torch"):
        prepare(from_config(CONFIG), None, StageWatch().during)
    assert not list((tmp_path / "dense").glob("*/dense.xml"))
