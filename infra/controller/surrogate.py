"""Gaussian processes for the controller: the only module of `infra` that knows torch, GPyTorch and BoTorch.

Numbers go in and come out as numpy arrays. Hyperparameters are fitted once per set of answers; pending points then join
as believers, that is as observations of what the model expects there (Ginsbourger et al. 2010), without another fit.
Priors follow BoTorch: lengthscales and noise are log-normal, scaled with the number of columns (Hvarfner et al. 2024).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gpytorch
import numpy as np
import torch
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, LinearKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ConstantMean, Mean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior, NormalPrior
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIT_STEPS = 40
MOST_FITTED = 200  # observations that find the hyperparameters
MOST_TOLD, EXTREMES = 1000, 100  # observations that a process knows: a sample, and the largest and smallest
SMALLEST_NOISE = 1e-5  # variance, in units of the scaled observations
SMALLEST = 1e-6  # of any other variance

# The same trials must give the same suggestion in any process, so sums may not depend on the number of cores.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Form:
    """The form of a Gaussian process over columns of features.

    `smooth` lists groups of columns, each with a squared-exponential kernel of one lengthscale per column, or of one
    for all its columns where `alike` says that they are of a kind, which few observations can tell better; `linear`
    columns get a linear kernel; `trend` is a column whose positive multiple is the prior mean. `noise` is the expected
    standard deviation of an observation and `scale` what observations are divided by, both in their own unit;
    a `scale` of None takes their spread.
    """

    smooth: tuple[tuple[int, ...], ...]
    alike: bool = False
    linear: tuple[int, ...] = ()
    trend: int | None = None
    scale: float | None = None
    noise: float | None = None
    centred: bool = True


class Surrogate:
    """A fitted Gaussian process, told of points [n, d] and observations [n]."""

    def __init__(
        self, model: SingleTaskGP, points: torch.Tensor, seen: torch.Tensor, shift: float, scale: float
    ) -> None:
        self._model, self._points, self._seen, self._shift, self._scale = model, points, seen, shift, scale
        with torch.no_grad():
            noise = model.likelihood.noise.item()
            gram = _dense(model.covar_module(points)) + (noise + 1e-8) * torch.eye(len(points), dtype=torch.double)
            self._factor = torch.linalg.cholesky(gram)
            residual = (seen - model.mean_module(points))[:, None]
            self._weights = torch.cholesky_solve(residual, self._factor)[:, 0]

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation [n] of the noise-free function at `points` [n, d], each point by itself."""
        with torch.no_grad():
            at = torch.as_tensor(points, dtype=torch.double)
            cross = _dense(self._model.covar_module(at, self._points))
            mean = self._model.mean_module(at) + cross @ self._weights
            known = torch.linalg.solve_triangular(self._factor, cross.T, upper=False).square().sum(0)
            variance = (self._model.covar_module(at, diag=True) - known).clamp_min(1e-10)
        return mean.numpy() * self._scale + self._shift, variance.sqrt().numpy() * self._scale

    def believing(self, points: Floats) -> Surrogate:
        """The same process told that `points` [n, d] turned out as it expects."""
        if not len(points):
            return self
        mean, _ = self.predict(points)
        expected = torch.as_tensor((mean - self._shift) / self._scale, dtype=torch.double)
        more = torch.cat([self._points, torch.as_tensor(points, dtype=torch.double)])
        return Surrogate(self._model, more, torch.cat([self._seen, expected]), self._shift, self._scale)

    def told(self, points: Floats, observations: Floats) -> Surrogate:
        """The process with the same hyperparameters and these observations in place of its own."""
        seen = torch.as_tensor((observations - self._shift) / self._scale, dtype=torch.double)
        return Surrogate(self._model, torch.as_tensor(points, dtype=torch.double), seen, self._shift, self._scale)

    def left_out(self) -> Floats:
        """The logarithm [n] of each observation's probability density, given the others (in scaled units).

        Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.10 to 5.12.
        """
        precision = torch.cholesky_inverse(self._factor).diagonal()
        return np.asarray((precision.log() - math.log(2 * math.pi) - self._weights.square() / precision).numpy() / 2)

    @property
    def noise(self) -> float:
        """The fitted standard deviation of an observation, in its own unit."""
        return math.sqrt(self._model.likelihood.noise.item()) * self._scale


def fit(points: Floats, observations: Floats, form: Form, first: int | None = None) -> Surrogate:
    """The process of this `form` with the most probable hyperparameters, for `points` [n, d] and `observations` [n].

    Hyperparameters come from the `first` ones (all, unless given), so that not every new answer costs a fit. The cost
    grows with the cube of their number: of many a sample finds the hyperparameters, and of very many the process is
    told a larger sample, and all the extreme ones.
    """
    first = len(points) if first is None else first
    chosen = np.arange(first)
    if first > MOST_FITTED:
        chosen = np.sort(_shuffled(points[:first], observations[:first])[:MOST_FITTED])
    process = _fitted(_Sample(points[chosen], observations[chosen]), form)
    if len(chosen) == len(points):
        return process
    told = np.arange(len(points))
    if len(points) > MOST_TOLD:
        ends = np.argsort(observations, kind="stable")[np.r_[:EXTREMES, -EXTREMES:0]]
        told = np.union1d(_shuffled(points, observations)[:MOST_TOLD], ends)
    return process.told(points[told], observations[told])


def _shuffled(points: Floats, observations: Floats) -> Ints:
    """The places of all observations in an order that each one's own numbers decide."""
    rows = np.column_stack([points, observations])
    ranks = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.array(sorted(range(len(ranks)), key=ranks.__getitem__), dtype=np.int64)


class _Sample:
    """Points and observations as a key."""

    def __init__(self, points: Floats, observations: Floats) -> None:
        self.points, self.observations = points, observations
        self._key = (points.shape, points.tobytes(), observations.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sample) and self._key == other._key


@lru_cache(maxsize=8)
def _fitted(sample: _Sample, form: Form) -> Surrogate:
    """Remembered: the suggestions of one batch, and often those of the next, stand on the same fit."""
    points, observations = sample.points, sample.observations
    shift = float(observations.mean()) if form.centred else 0.0
    spread = float(np.sqrt(np.mean((observations - shift) ** 2)))
    scale = form.scale or max(spread, 1e-9)
    at = torch.as_tensor(points, dtype=torch.double)
    seen = torch.as_tensor((observations - shift) / scale, dtype=torch.double)
    model = _model(at, seen, form, scale)
    start = deepcopy(model.state_dict())
    with warnings.catch_warnings():
        # A fit that stops at its step limit is good enough; what would matter shows in the predictions.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            _train(model)
        except (
            RuntimeError,
            ValueError,
        ):  # numerically hopeless data: the priors' own values serve until more is known
            model.load_state_dict(start)
    return Surrogate(model.eval(), at, seen, shift, scale)


def _train(model: SingleTaskGP) -> None:
    options: dict[str, Any] = {"options": {"maxiter": FIT_STEPS}}
    with gpytorch.settings.cholesky_max_tries(8):
        fit_gpytorch_mll(
            ExactMarginalLogLikelihood(model.likelihood, model),
            optimizer_kwargs=options,
            max_attempts=1,
            warning_handler=_accept,
        )


def _accept(warning: Any) -> bool:
    return True


def _model(at: torch.Tensor, seen: torch.Tensor, form: Form, scale: float) -> SingleTaskGP:
    likelihood = GaussianLikelihood(noise_prior=_noise_prior(form, scale), noise_constraint=GreaterThan(SMALLEST_NOISE))
    mean = ConstantMean() if form.trend is None else Trend(form.trend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on scaling and float type does not apply: both are done here
        model = SingleTaskGP(
            at,
            seen[:, None],
            likelihood=likelihood,
            covar_module=_kernel(form),
            mean_module=mean,
            outcome_transform=None,
        )
    likelihood.noise = math.exp(_noise_prior(form, scale).loc.item())
    return model.double()


def _noise_prior(form: Form, scale: float) -> LogNormalPrior:
    if form.noise is None:
        return LogNormalPrior(-4.0, 1.0)
    return LogNormalPrior(2 * math.log(max(form.noise / scale, 2 * math.sqrt(SMALLEST_NOISE))), 1.0)


def _kernel(form: Form) -> Kernel:
    parts: list[Kernel] = [_smooth(columns, form.alike) for columns in form.smooth]
    if form.linear:
        parts.append(_linear(form.linear))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _smooth(columns: Sequence[int], alike: bool) -> Kernel:
    prior = LogNormalPrior(math.sqrt(2) + 0.5 * math.log(len(columns)), math.sqrt(3))
    constraint = GreaterThan(0.025, transform=None, initial_value=prior.mode)
    kernel = RBFKernel(
        ard_num_dims=None if alike else len(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=constraint,
        active_dims=tuple(columns),
    )
    scaled = ScaleKernel(
        kernel, outputscale_prior=LogNormalPrior(0.0, 1.0), outputscale_constraint=GreaterThan(SMALLEST)
    )
    scaled.outputscale = 1.0
    return scaled


def _linear(columns: Sequence[int]) -> Kernel:
    kernel = DenseLinear(
        active_dims=tuple(columns), variance_prior=LogNormalPrior(-1.0, 1.0), variance_constraint=GreaterThan(SMALLEST)
    )
    kernel.variance = math.exp(-1.0)
    return kernel


def _dense(kernel: Any) -> torch.Tensor:
    matrix = kernel.to_dense() if hasattr(kernel, "to_dense") else kernel
    assert isinstance(matrix, torch.Tensor)
    return matrix


class DenseLinear(LinearKernel):  # type: ignore[misc]
    """A linear kernel as a plain matrix: added as a low-rank factor it would be factored once more for every sum."""

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, diag: bool = False, **params: Any) -> torch.Tensor:
        """The kernel's matrix [..., n, m], or its diagonal [..., n]."""
        return _dense(super().forward(x1, x2, diag=diag, **params))


class Trend(Mean):  # type: ignore[misc]
    """A prior mean: a constant and a positive multiple of one column."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column
        self.register_parameter("constant", torch.nn.Parameter(torch.zeros(1)))
        self.register_parameter("raw_slope", torch.nn.Parameter(torch.zeros(1)))
        self.register_prior("constant_prior", NormalPrior(0.0, 0.3), "constant")
        self.register_prior("slope_prior", NormalPrior(0.0, 1.0), "raw_slope")

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """The mean [..., n] at points [..., n, d]; the slope is the exponential of a normal number."""
        mean: torch.Tensor = self.constant + self.raw_slope.exp() * points[..., self.column]
        return mean
