"""BoTorch's noisy expected improvement on the scalar objective, as a plug-in of the synthetic search bench.

What a generic Bayesian optimiser of today makes of the problem: `SingleTaskGP` with its defaults, `qLogNEI` with
pending points, no profile, no latency model. Source: https://botorch.org, Ament et al. 2023 (arXiv:2310.20708).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from botorch.utils.sampling import draw_sobol_samples
from gpytorch.mlls import ExactMarginalLogLikelihood

FIRST = 8  # points of a Sobol sequence before the first model
RESTARTS, RAW, SAMPLES = 4, 128, 64


class QLogNei:
    """Asks and tells BoTorch; see the bench for the contract."""

    def __init__(
        self, space: Sequence[Mapping[str, Any]], objective: Mapping[str, Any], info: Mapping[str, Any], seed: int
    ) -> None:
        warnings.filterwarnings("ignore")
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self._names = [axis["name"] for axis in space]
        self._bounds = torch.tensor([[a["min"] for a in space], [a["max"] for a in space]], dtype=torch.double)
        self._first = draw_sobol_samples(self._bounds, n=FIRST, q=1, seed=seed)[:, 0]
        self._begun = 0
        self._seen: list[tuple[torch.Tensor, float]] = []
        self._pending: list[torch.Tensor] = []

    def ask(self, n: int) -> list[dict[str, float]]:
        """The next `n` configurations."""
        return [self._one() for _ in range(n)]

    def tell(self, config: Mapping[str, float], result: Mapping[str, float]) -> None:
        """What a trial came to."""
        point = torch.tensor([config[name] for name in self._names], dtype=torch.double)
        self._pending.pop(next(i for i, each in enumerate(self._pending) if torch.allclose(each, point)))
        self._seen.append((point, float(result["value"])))

    def _one(self) -> dict[str, float]:
        if self._begun < FIRST:
            point = self._first[self._begun]
        elif len(self._seen) < 2:
            point = self._bounds[0] + (self._bounds[1] - self._bounds[0]) * torch.rand(len(self._names))
        else:
            point = self._best()
        self._begun += 1
        self._pending.append(point)
        return dict(zip(self._names, point.tolist(), strict=True))

    def _best(self) -> torch.Tensor:
        points = torch.stack([point for point, _ in self._seen])
        values = torch.tensor([[value] for _, value in self._seen], dtype=torch.double)
        model = SingleTaskGP(points, values, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        gain = qLogNoisyExpectedImprovement(
            model, points, X_pending=torch.stack(self._pending) if self._pending else None, prune_baseline=True
        )
        found, _ = optimize_acqf(gain, self._bounds, q=1, num_restarts=RESTARTS, raw_samples=RAW)
        return found[0]
