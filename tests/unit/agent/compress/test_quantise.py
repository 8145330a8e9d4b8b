"""INT8 and bf16: what is quantised, measured, judged and shipped."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import TinyTask

from prunefleet.agent.compress.quantise import quantise
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import MeasurementSession, MeasurementSetup, compare_many
from prunefleet.agent.measure.device import channel_step
from prunefleet.agent.measure.export import export, parity
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.agent.measure.runners.base import supported_precisions
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.registry import runner_at
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Candidate, FailureKind, TrialFailed

from support.networks import Residual
from support.trial_context import tiny_context

IMAGES = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def types(model: Exported) -> Counter[str]:
    """How many constants of each type a network has."""
    constants = [op for op in openvino.Core().read_model(model.xml).get_ops() if op.get_type_name() == "Constant"]
    return Counter(str(op.get_element_type()) for op in constants)


def layers(model: Exported) -> list[str]:
    return [op.get_type_name() for op in openvino.Core().read_model(model.xml).get_ordered_ops()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    return export(Residual(16, (8,)).eval(), IMAGES[:1], tmp_path_factory.mktemp("int8"), name="plain")


@pytest.fixture(scope="module")
def small(plain: Exported) -> Exported:
    pytest.importorskip("nncf")
    return quantise(plain, IMAGES.split(10), "model")


def test_weights_become_integers(plain: Exported, small: Exported) -> None:
    """Every convolution's; the weights shrink, and the network that it was made of stays as it was."""
    assert types(small)["<Type: 'int8_t'>"] >= 4 and "<Type: 'int8_t'>" not in types(plain)
    assert small.precision == "int8" and small.input_shape == plain.input_shape
    assert small.xml.with_suffix(".bin").stat().st_size < plain.xml.with_suffix(".bin").stat().st_size
    assert plain.network is not None and parity(plain, plain.network, IMAGES[:1]) < 1e-5


def test_it_computes_nearly_the_same(plain: Exported, small: Exported) -> None:
    """Within what eight bits can tell."""
    exact, rough = (Deployed(runner_at("int8").load(each), each.input_shape)(IMAGES) for each in (plain, small))
    assert 0 < float((exact - rough).abs().max()) < 0.1 * float(exact.abs().max())


def test_a_rough_one_has_the_same_layers(plain: Exported, small: Exported) -> None:
    """So its latency is the same; it is made of a few inputs."""
    seen: list[int] = []
    rough = quantise(plain, (seen.append(1) or batch for batch in IMAGES.split(1)), "rough", rough=True)  # type: ignore[func-returns-value]
    assert layers(rough) == layers(small) and len(seen) < 10


def test_without_nncf_it_says_what_to_install(plain: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of this host: another one may have it."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(TrialFailed, match=r"pip install 'prunefleet\[int8\]'") as told:
        quantise(plain, IMAGES.split(10), "model")
    assert told.value.failure.kind is FailureKind.DEVICE


def test_a_precision_that_this_host_has_not_is_refused() -> None:
    """bf16 on a processor without it is not f32 by another name; around INT8 layers the rest computes in f32."""
    if "bf16" not in supported_precisions():
        with pytest.raises(BadInput, match="precision: got 'bf16'; CPU of this host computes in f32"):
            runner_at("bf16")
    assert runner_at("int8").precision == "f32"
    with pytest.raises(BadInput, match="precision: got 'f8'"):
        runner_at("f8")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialContext]:
    pytest.importorskip("nncf")
    with tiny_context(tmp_path_factory.mktemp("cache"), measure={"precision": "int8"}) as made:
        yield made


def test_a_trial_at_int8(context: TrialContext, tmp_path: Path) -> None:
    """Measured against the INT8 dense network, judged and shipped as quantised; only its f32 export must be exact."""
    watch = StageWatch()
    result = run_trial(Candidate({"conv2": 0.5}, "int8", epochs=0.5), context, tmp_path, watch)
    assert isinstance(result, Trial)
    assert list(watch.seconds)[-4:] == ["export_final", "parity", "quantise", "evaluate"]
    assert types(context.dense)["<Type: 'int8_t'>"] >= 3 and "<Type: 'int8_t'>" not in types(context.dense_f32)
    latency, accuracy = result.measurement.worst, result.measurement.accuracy
    assert latency.precision == "int8" and latency.ratio_f32 is not None
    assert result.parity < 1e-4 and result.exported.precision == "int8"
    assert types(result.exported)["<Type: 'int8_t'>"] >= 3
    assert result.measurement.size_bytes == result.exported.size_bytes < context.dense_f32.size_bytes
    judged = context.task.evaluate(
        Deployed(context.runner.load(result.exported), result.exported.input_shape), "validation"
    )
    assert accuracy.val == judged["top1"] and accuracy.trained is not None
    assert accuracy.trained == context.task.evaluate(result.network, "validation")["top1"]


def test_only_training_inputs_calibrate(context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation and holdout parts could be garbage: the quantised network is the same."""
    before = context.deploy(context.baseline.network, tmp_path / "a").xml.with_suffix(".bin").read_bytes()
    task = TinyTask()
    for split in ("validation", "holdout", "test"):
        task.images[split].pixels.fill_(255)
    monkeypatch.setattr(task, "example_input", context.task.example_input)
    spoilt = context.__class__(**{**context.__dict__, "task": task})
    assert spoilt.deploy(context.baseline.network, tmp_path / "b").xml.with_suffix(".bin").read_bytes() == before


def test_the_dense_network_at_another_precision_is_another_reference(context: TrialContext) -> None:
    """A sweep may search the precision: a context changes to it, dense network and channel grid with it."""
    other = context.at("f32")
    assert other.precision == "f32" and other.dense == context.dense_f32
    assert context.at("int8") is context and other.at("int8").dense == context.dense


def test_a_sweep_that_compares_precisions_holds_each_against_f32(context: TrialContext, tmp_path: Path) -> None:
    """The ratio is to the dense network at f32 whatever the candidate's precision, and one grid serves them all."""
    plain = replace(context, against="f32").at("f32")
    comparing = plain.at("int8")
    f32, int8 = (channel_step(context.devices[0], precision) for precision in ("f32", "int8"))
    assert comparing.space.groups == plain.space.groups
    assert (comparing.space.groups == context.space.groups) is (f32 == int8)  # AMX has wider tiles for int8 alone
    measured: list[tuple[str, str, str]] = []

    def measure(candidates: Any, dense: Any, setup: MeasurementSetup) -> MeasurementSession:
        measured.append((dense.precision, candidates["candidate"].precision, ", ".join(candidates)))
        return compare_many(candidates, dense, setup)

    watched: Any = replace(comparing.places[0], measure=measure)
    there = replace(comparing, places=(watched,))
    result = run_trial(Candidate({"conv2": 0.5}, "int8", epochs=0.2), there, tmp_path, StageWatch())
    assert isinstance(result, Trial)
    assert measured[0] == ("f32", "int8", "candidate")
    latency = result.measurement.worst
    assert latency.precision == "int8" and latency.ratio_f32 is None


@pytest.mark.skipif("bf16" not in supported_precisions(), reason="this processor does not compute in bf16")
def test_a_trial_at_bf16(context: TrialContext, tmp_path: Path) -> None:
    """Measured and judged in bf16; its export is as exact as that of f32."""
    result = run_trial(Candidate({"conv2": 0.5}, "bf16", epochs=0.2), context.at("bf16"), tmp_path, StageWatch())
    assert isinstance(result, Trial)
    assert result.measurement.worst.precision == "bf16"
    assert result.measurement.accuracy.trained is not None and result.parity < 1e-4
