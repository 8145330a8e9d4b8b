"""INT8 by post-training quantisation: the one place that knows NNCF.

Weights and activations of an exported network become 8-bit integers; the ranges of the activations come from training
inputs. What NNCF leaves alone stays in f32.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prunefleet.agent.measure.export import save
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

SAMPLES = 300  # NNCF's own default
ROUGH_SAMPLES = 4
INSTALL = "INT8 needs NNCF on this host: pip install 'prunefleet[int8]'"


def quantise(model: Exported, calibration: Iterable[torch.Tensor], name: str, rough: bool = False) -> Exported:
    """The INT8 network of `model`, written as `name.xml` and `.bin` beside it; `model` stays as it is.

    `calibration`: batches of training inputs, [n, ...] each. `rough` is quick and gives the same layers with ranges of
    little worth: for the latency of a network that is not trained yet. Raises `TrialFailed` of kind DEVICE where NNCF
    is missing or cannot quantise the network.
    """
    nncf = _nncf()
    samples = ROUGH_SAMPLES if rough else SAMPLES
    inputs = list(islice(_inputs(calibration, model.input_shape), samples))
    advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=rough)
    network = openvino.Core().read_model(model.xml)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            made = nncf.quantize(network, nncf.Dataset(inputs), subset_size=len(inputs), advanced_parameters=advanced)
    except Exception as error:
        raise _failed(f"NNCF cannot quantise the network: {' '.join(str(error).split())[:200]}") from error
    xml = model.xml.with_name(f"{name}.xml")
    save(made, xml)
    return sized(xml, "int8", model.input_shape)


def _nncf() -> Any:
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF looks for CUDA; torch tells of none
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise _failed(INSTALL) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _inputs(batches: Iterable[torch.Tensor], shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Batches cut to the network's fixed input; a rest that does not fill one is left out."""
    for batch in batches:
        for part in torch.split(batch.float(), shape[0]):
            if tuple(part.shape) == shape:
                yield part.numpy()


def _failed(message: str) -> TrialFailed:
    return TrialFailed(Failure(FailureKind.DEVICE, "quantise", message))
