"""The controller's Gaussian processes beside GPyTorch's, and their gradient beside differences."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from prunefleet.infra.controller.models.kernels import (
    LARGEST,
    SMALLEST_LENGTH,
    FittedKernel,
    Floats,
    KernelSpec,
    MarginalLikelihood,
    noise_prior,
)
from prunefleet.infra.controller.models.surrogate import Surrogate, fit

COLUMNS = 6
SPECS = {
    "one kernel": KernelSpec(smooth=(tuple(range(COLUMNS)),), centred=False, scale=1.0),
    "alike": KernelSpec(smooth=((0, 1, 2), (3, 4, 5)), alike=True, linear=(3, 4, 5), trend=5, noise=0.05, scale=1.0),
    "of a kind each": KernelSpec(smooth=((0, 1), (2, 3, 4, 5)), linear=(0, 1), noise=0.1, scale=1.0),
    "additive": KernelSpec(smooth=((0, 1),), linear=(2,), additive=(3, 4, 5), noise=0.1, scale=1.0),
}
everything = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def data(seed: int, count: int = 20) -> tuple[Floats, Floats]:
    """Points in [0, 1] and observations of size 1."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, COLUMNS))
    return points, points[:, 0] * points[:, 5] + np.sin(3 * points[:, 2]) + 0.05 * rng.normal(size=count)


def likelihood_of(spec: KernelSpec, seed: int = 0) -> MarginalLikelihood:
    return MarginalLikelihood(spec, *data(seed), noise_prior(spec, 1.0))


@everything
@given(seed=st.integers(0, 1000))
def test_the_gradient_is_the_slope(spec: KernelSpec, seed: int) -> None:
    """At any hyperparameters it is what finite differences say."""
    ask = likelihood_of(spec, seed)
    at = ask.start + np.random.default_rng(seed).uniform(-0.5, 0.5, len(ask.start))
    value, gradient = ask(at)
    assert np.isfinite(value)
    slope = approx_fprime(at, lambda vector: ask(vector)[0], 1e-6)
    assert gradient == pytest.approx(slope, abs=1e-4, rel=1e-3)


@everything
def test_value_and_predictions_are_those_of_gpytorch(spec: KernelSpec) -> None:
    """An independent library finds the same likelihood, means and standard deviations at the same hyperparameters."""
    gpytorch = pytest.importorskip("gpytorch", reason="compares with GPyTorch, as the extra dev installs it")
    torch = pytest.importorskip("torch")
    points, seen = data(1)
    ask = likelihood_of(spec, 1)
    vector = ask.start + 0.1
    fitted = ask.kernel(vector)
    parts = []
    for columns, lengths, scale in zip(spec.smooth, fitted.lengths, fitted.scales, strict=True):
        kernel = gpytorch.kernels.RBFKernel(ard_num_dims=len(columns), active_dims=columns)
        kernel.lengthscale = torch.tensor(np.broadcast_to(lengths, len(columns)).copy())
        parts.append(gpytorch.kernels.ScaleKernel(kernel))
        parts[-1].outputscale = scale
    if spec.linear:
        parts.append(gpytorch.kernels.LinearKernel(active_dims=spec.linear))
        parts[-1].variance = fitted.weights[0]
    if spec.additive:
        first = gpytorch.kernels.LinearKernel(active_dims=spec.additive)
        first.variance = fitted.weights[-2]
        square = gpytorch.kernels.PolynomialKernel(2, active_dims=spec.additive).double()
        square.offset = 1e-9
        parts += [first, gpytorch.kernels.ScaleKernel(square)]
        parts[-1].outputscale = fitted.weights[-1]
    total = parts[0]
    for part in parts[1:]:
        total = total + part

    class Process(gpytorch.models.ExactGP):  # type: ignore[name-defined, misc]
        covar_module = total

        def forward(self, at):  # type: ignore[no-untyped-def]
            return gpytorch.distributions.MultivariateNormal(
                torch.as_tensor(fitted.mean(at.numpy())), self.covar_module(at)
            )

    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-8))
    likelihood.noise = fitted.noise
    at, told = torch.as_tensor(points), torch.as_tensor(seen)
    process = Process(at, told, likelihood).double()
    density = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, process)(process(at), told).item()
    assert -ask(vector)[0] == pytest.approx(density + prior(ask, vector) / len(seen), abs=1e-5)
    process.eval()
    new, _ = data(2, 7)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = process(torch.as_tensor(new))
    mean, std = Surrogate(fitted, points, seen, 0.0, 1.0).predict(new)
    assert mean == pytest.approx(wanted.mean.numpy(), abs=1e-5)
    assert std == pytest.approx(wanted.stddev.numpy(), abs=1e-4)


def prior(ask: MarginalLikelihood, vector: Floats) -> float:
    """The logarithm of the prior density of the hyperparameters, by torch's distributions."""
    torch = pytest.importorskip("torch")
    logs = [torch.distributions.LogNormal(each.middle, each.spread) for each in ask._priors]
    found = sum(law.log_prob(torch.tensor(math.exp(x))).item() for law, x in zip(logs, vector, strict=False))
    if ask.spec.trend is None:
        return float(found)
    ends = zip(vector[-2:], (0.3, 1.0), strict=True)
    return float(
        found + sum(torch.distributions.Normal(0.0, spread).log_prob(torch.tensor(x)).item() for x, spread in ends)
    )


SEARCH = "prunefleet.infra.controller"


def test_the_search_does_without_torch() -> None:
    """A hub needs a hundred megabytes for it, not half a gigabyte and seconds of loading."""
    code = f"import sys, {SEARCH}.engines.bayes, {SEARCH}.ask_tell; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def vector_of(kernel: FittedKernel) -> Floats:
    """The hyperparameters of a process as the likelihood takes them."""
    found = [
        part for at, scale in zip(kernel.lengths, kernel.scales, strict=True) for part in (*np.log(at), math.log(scale))
    ]
    found += [*np.log(kernel.weights), math.log(kernel.noise), kernel.constant]
    return np.array([*found, *([] if kernel.spec.trend is None else [math.log(kernel.slope)])])


@everything
def test_a_fit_is_at_least_as_probable_as_its_start(spec: KernelSpec) -> None:
    """And stays within the bounds of the hyperparameters."""
    points, seen = data(3)
    ask = MarginalLikelihood(spec, points, seen - (seen.mean() if spec.centred else 0.0), noise_prior(spec, 1.0))
    kernel = fit(points, seen, spec)._kernel
    assert ask(vector_of(kernel))[0] <= ask(ask.start)[0]
    lengths = np.concatenate(kernel.lengths)
    assert (lengths >= SMALLEST_LENGTH - 1e-12).all() and (lengths <= LARGEST).all()
    assert np.square(fit(points, seen, spec).predict(points)[0] - seen).mean() < np.var(seen)


@pytest.mark.parametrize(
    "seen", [np.zeros(8), np.ones(8), np.array([1e9] + 7 * [0.0])], ids=["zero", "same", "one huge"]
)
def test_hopeless_observations_still_give_a_process(seen: Floats) -> None:
    """Predictions are finite whatever was observed, also at points that are all the same."""
    for points in (np.random.default_rng(0).random((8, COLUMNS)), np.full((8, COLUMNS), 0.5)):
        mean, std = fit(points, seen, KernelSpec(smooth=(tuple(range(COLUMNS)),))).predict(points)
        assert np.isfinite(mean).all() and np.isfinite(std).all()
