"""The parts of the Bayesian search: grid and maximum, acquisition, the two models, processes of many answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunefleet.infra.controller.candidates import WHOLE, Grid, maximise
from prunefleet.infra.controller.models import surrogate
from prunefleet.infra.controller.models.accuracy import Drop, LatencyModel, Sensitivity
from prunefleet.infra.controller.models.acquisition import log_expected_improvement, normals, possible
from prunefleet.infra.controller.models.kernels import KernelSpec
from prunefleet.infra.controller.models.surrogate import fit
from prunefleet.infra.controller.pruning.channels import ChannelGrid
from prunefleet.objective.profiles.space import GroupSpec

from support.controller import DENSE, WIDTHS, Problem, sweep

PROBLEM = Problem.seeded(3)
PROFILE = PROBLEM.profile()


def test_maximise_small_and_large() -> None:
    """The best free point is found: exactly on a small grid, nearly on a large one."""
    rng = np.random.default_rng(0)
    small = Grid([4, 5], taken=[(3, 4)])
    best = maximise(lambda points: points.sum(axis=1).astype(float), small, small.random(1, rng), rng)
    assert best is not None
    assert best.score == 6
    large = Grid([8] * 12)
    target = rng.integers(0, 8, 12)
    assert large.count > WHOLE
    best = maximise(lambda points: -np.abs(points - target).sum(axis=1).astype(float), large, large.random(1, rng), rng)
    assert best is not None
    assert best.score == 0


def test_grid_without_free_points() -> None:
    """Where all is taken there is no best point."""
    rng = np.random.default_rng(0)
    grid = Grid([2], taken=[(0,), (1,), (9,)])
    assert grid.left == 0
    assert maximise(lambda points: points[:, 0] * 1.0, grid, grid.random(1, rng), rng) is None


def test_expected_improvement() -> None:
    """It follows the known formula where that is not small, and still ranks points that are hopeless."""
    draws = normals(1024, 1, 0)
    known = np.exp(log_expected_improvement(0.0 + 1.0 * draws, best=0.5, blur=1e-4))
    assert known[0] == pytest.approx(0.1978, abs=2e-3)
    hopeless = log_expected_improvement(np.array([[-50.0, -40.0]]) + 0.1 * draws, best=0.0, blur=1e-2)
    assert np.isfinite(hopeless).all()
    assert hopeless[0] < hopeless[1]


def test_possible() -> None:
    """Without impossible trials all is possible; beside one it is doubted, far away hardly."""
    here, far = np.zeros((1, 3)), np.ones((1, 3))
    assert possible(here, far, np.zeros((0, 3)))[0] == 1
    assert possible(here, far, here)[0] < 0.5 < 0.9 < possible(far, far, here)[0]


def test_process_honours_its_form() -> None:
    """A process returns to its observations, is unsure far from them, and surer where it believes."""
    rng = np.random.default_rng(0)
    points = rng.random((12, 2))
    seen = np.sin(3 * points[:, 0]) + points[:, 1]
    made = fit(points, seen, KernelSpec(smooth=((0, 1),)))
    mean, near = made.predict(points)
    assert np.abs(mean - seen).max() < 0.15
    there = np.array([[3.0, -2.0]])
    _, far = made.predict(there)
    assert far[0] > 3 * near.max()
    assert made.with_pending(there).predict(there)[1][0] < 0.7 * far[0]
    assert made.noise < 0.2


def test_latency_law_generalises() -> None:
    """From single groups and twelve spread trials unseen candidates' latency is known within 6 %, as it says itself."""
    space = ChannelGrid(sweep(profile=PROFILE), PROFILE)
    kept = space.kept(Grid(space.sizes).random(12, np.random.default_rng(0)))
    took = [PROBLEM.latency(dict(zip(WIDTHS, map(int, row), strict=True))) for row in kept]
    model = LatencyModel(PROFILE, kept, np.array(took) * (1 + 0.01 * np.random.default_rng(2).normal(size=12)))
    fresh = space.kept(Grid(space.sizes).random(64, np.random.default_rng(1)))
    truth = np.log([PROBLEM.latency(dict(zip(WIDTHS, map(int, row), strict=True))) for row in fresh])
    band = model.predict(fresh)
    assert np.median(np.abs(band.mean - truth)) < 0.06
    assert np.mean(np.abs(band.mean - truth) < 3 * band.std) > 0.7


def test_drop_model_orders_candidates() -> None:
    """From curves and twelve spread trials the drop of unseen candidates is ranked well, and small ones in size."""
    space = ChannelGrid(sweep(profile=PROFILE), PROFILE)
    sensitivity = Sensitivity(PROFILE)
    rng = np.random.default_rng(2)
    kept = space.kept(Grid(space.sizes).random(14, rng))
    truth = [PROBLEM.drop(dict(zip(WIDTHS, map(int, row), strict=True))) for row in kept]
    model = Drop(sensitivity, kept, np.array(truth))
    fresh = space.kept(Grid(space.sizes).random(64, rng))
    expected = model.sample(model.predict(fresh), np.zeros((1, 1)))[0]
    real = np.array([PROBLEM.drop(dict(zip(WIDTHS, map(int, row), strict=True))) for row in fresh])
    assert np.corrcoef(expected.argsort().argsort(), real.argsort().argsort())[0, 1] > 0.8
    dense = np.array([list(WIDTHS.values())], dtype=float)
    assert abs(model.sample(model.predict(dense), np.zeros((1, 1)))[0, 0]) < 0.01


def test_curves_may_be_missing_or_rough() -> None:
    """A group without a curve, or with a curve that rises again, still gets a cost that grows with pruning."""
    rough = tuple(replace(curve, metric=(DENSE, *curve.metric[1:])) for curve in PROFILE.curves[1:])
    costs = Sensitivity(replace(PROFILE, curves=rough))
    rungs = np.array([[width * share for width in WIDTHS.values()] for share in (1.0, 0.75, 0.5, 0.25)])
    assert (np.diff(costs(rungs), axis=0) >= 0).all()
    assert np.allclose(costs(rungs[:1]), 0)


def _bowl(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(seed).random((count, 3))
    return points, ((points - 0.5) ** 2).sum(axis=1)


def test_hyperparameters_of_many_answers_come_from_a_sample_that_stays() -> None:
    """With many answers the fit is that of a sample, another answer seldom changes it, and all answers are known."""
    points, values = _bowl(3 * surrogate.MOST_FITTED, 0)
    form = KernelSpec(smooth=((0, 1, 2),))
    surrogate._fitted.cache_clear()
    model = surrogate.fit(points, values, form)
    for count in range(len(points) - 5, len(points)):
        surrogate.fit(points[:count], values[:count], form)
    assert surrogate._fitted.cache_info().misses <= 5
    at, wanted = _bowl(50, 1)
    mean, _ = model.predict(at)
    assert np.abs(mean - wanted).max() < 0.05
    again, _ = surrogate.fit(points[::-1], values[::-1], form).predict(at)
    assert np.allclose(mean, again, atol=1e-3)


def test_of_very_many_answers_the_best_is_always_known() -> None:
    """A process that cannot know every answer knows the extreme ones."""
    points, values = _bowl(2 * surrogate.MOST_OBSERVED, 2)
    place = int(values.argmin())
    values[place] = -1.0
    model = surrogate.fit(points, values, KernelSpec(smooth=((0, 1, 2),)))
    mean, _ = model.predict(points[place][None])
    assert mean[0] < np.median(values) - 0.1


def test_latency_in_blocks_of_a_vector() -> None:
    """What computes in blocks of 16 channels is foretold from forty mixed candidates as well as what does not."""
    rng = np.random.default_rng(4)
    groups = tuple(GroupSpec(f"g{place}", 96, 8) for place in range(6))
    profile = replace(PROFILE, groups=groups, curves=(), latencies=(), warm=())
    kept = 8.0 * rng.integers(1, 13, (160, 6))

    def took(kept: np.ndarray, block: int) -> np.ndarray:
        shares = np.ceil(kept / block) * block / 96
        return np.asarray(0.2 + 0.8 * (shares[:, 1:] * shares[:, :-1]).mean(axis=1))

    errors = []
    for block in (1, 16):
        model = LatencyModel(profile, kept[:40], took(kept[:40], block) * (1 + 0.003 * rng.normal(size=40)))
        errors.append(float(np.std(model.predict(kept[40:]).mean - np.log(took(kept[40:], block)))))
    assert max(errors) < 0.015


def test_latency_that_jumps_with_a_group_and_with_a_pair() -> None:
    """Where devices are slow at some counts of a group, or of two groups together, mixed candidates teach it."""
    rng = np.random.default_rng(5)
    groups = tuple(GroupSpec(f"g{place}", 64, 8) for place in range(6))
    profile = replace(PROFILE, groups=groups, curves=(), latencies=(), warm=())
    kept = 8.0 * rng.integers(1, 9, (360, 6))
    alone, pair = rng.normal(0, 0.02, (6, 9)), rng.normal(0, 0.01, (9, 9))
    levels = (kept / 8).astype(int)
    jumps = alone[np.arange(6), levels].sum(axis=1) + pair[levels[:, 0], levels[:, 1]]
    took = (0.2 + 0.8 * (kept[:, 1:] * kept[:, :-1] / 64**2).mean(axis=1)) * np.exp(jumps)
    model = LatencyModel(profile, kept[:300], took[:300] * np.exp(0.002 * rng.normal(size=300)))
    assert np.std(model.predict(kept[300:]).mean - np.log(took[300:])) < 0.012
    assert np.std(jumps) > 0.03
