"""The best point of a finite grid under a score that is cheap to ask in batches.

A point is a row of level numbers, one per axis. Small grids are asked as a whole; larger ones by an evolutionary search
from good starts and a polish that tries single steps and many double steps from the best few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WHOLE = 3000  # a grid of at most so many points is asked as a whole
POPULATION, PARENTS, GENERATIONS = 96, 24, 14
POLISHED, POLISH_STEPS, DOUBLE_STEPS = 3, 24, 96
NEAR = 3  # levels: how far a step of the polish goes after the first, which goes anywhere


@dataclass(frozen=True)
class Best:
    """The winning point [axes] and its score."""

    point: Ints
    score: float


class Grid:
    """Points that may be tried: `sizes` levels per axis, without those in `taken`."""

    def __init__(self, sizes: Sequence[int], taken: Iterable[tuple[int, ...]] = ()) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.taken = set(taken)
        self.count = math.prod(sizes)

    @property
    def left(self) -> int:
        """How many points are not taken."""
        inside = sum(all(0 <= level < size for level, size in zip(p, self.sizes, strict=True)) for p in self.taken)
        return self.count - inside

    def random(self, count: int, rng: np.random.Generator) -> Ints:
        """`count` points [count, axes], each axis uniform over its levels; taken ones included."""
        return rng.integers(0, self.sizes, size=(count, len(self.sizes)))

    def all(self) -> Ints:
        """Every point [count, axes]."""
        return np.stack(np.unravel_index(np.arange(self.count), tuple(self.sizes)), axis=1).astype(np.int64)

    def free(self, points: Ints) -> Ints:
        """The distinct rows of `points` that are not taken."""
        distinct = np.unique(points, axis=0)
        return distinct[[tuple(point) not in self.taken for point in distinct.tolist()]]


def maximise(score: Callable[[Ints], Floats], grid: Grid, starts: Ints, rng: np.random.Generator) -> Best | None:
    """The free point of highest `score` that the search finds; None when no point is free.

    `score` maps points [n, axes] to [n]; `starts` [m, axes] join the first generation. Seeded by `rng`.
    """
    if grid.count <= WHOLE:
        return _best(score, grid.free(grid.all()))
    if grid.left <= 0:
        return None
    points, scores = _evolve(score, grid, starts, rng)
    polished = [_polish(score, grid, point, rng) for point in points[:POLISHED]]
    found = [best for best in (*polished, Best(points[0], float(scores[0]))) if best is not None]
    return max(found, key=lambda best: best.score)


def _evolve(score: Callable[[Ints], Floats], grid: Grid, starts: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """The best `PARENTS` points met, best first, with their scores."""
    points = grid.free(np.concatenate([starts, grid.random(4 * POPULATION, rng)]))
    points, scores = _select(points, score(points))
    for _ in range(GENERATIONS):
        fresh = grid.free(_children(points, grid, rng))
        points, scores = _select(np.concatenate([points, fresh]), np.concatenate([scores, score(fresh)]))
    return points, scores


def _select(points: Ints, scores: Floats) -> tuple[Ints, Floats]:
    _, first = np.unique(points, axis=0, return_index=True)
    order = first[np.argsort(-scores[first], kind="stable")][:PARENTS]
    return points[order], scores[order]


def _children(parents: Ints, grid: Grid, rng: np.random.Generator) -> Ints:
    """Uniform crossover of two parents, then one to three axes moved by a few levels or drawn anew."""
    # Better parents have more children: a squared uniform number prefers the front of the list.
    mother, father = (rng.random((2, POPULATION)) ** 2 * len(parents)).astype(np.int64)
    from_mother = rng.random((POPULATION, parents.shape[1])) < 0.5
    children = np.where(from_mother, parents[mother], parents[father])
    moved = rng.random(children.shape) < rng.uniform(1, 3, (POPULATION, 1)) / children.shape[1]
    steps = rng.integers(-2, 3, children.shape)
    anew = rng.random(children.shape) < 0.25
    shifted = np.where(anew, grid.random(POPULATION, rng), children + steps)
    return np.clip(np.where(moved, shifted, children), 0, grid.sizes - 1)


def _polish(score: Callable[[Ints], Floats], grid: Grid, point: Ints, rng: np.random.Generator) -> Best | None:
    best: Best | None = None
    for turn in range(POLISH_STEPS):
        reach = NEAR if turn else int(grid.sizes.max())
        step = _best(score, grid.free(np.concatenate([point[None], _neighbours(point, grid, rng, reach)])))
        if step is None or (best is not None and step.score <= best.score):
            break
        best, point = step, step.point
    return best


def _neighbours(point: Ints, grid: Grid, rng: np.random.Generator, reach: int) -> Ints:
    """Every change of one axis by up to `reach` levels, and random steps of two axes at once."""
    levels = [
        np.arange(max(0, at - reach), min(size, at + reach + 1)) for at, size in zip(point, grid.sizes, strict=True)
    ]
    axes = np.repeat(np.arange(len(point)), [len(each) for each in levels])
    single = np.repeat(point[None], len(axes), axis=0)
    single[np.arange(len(axes)), axes] = np.concatenate(levels)
    double = np.repeat(point[None], DOUBLE_STEPS, axis=0)
    for _ in range(2):
        axis = rng.integers(0, len(point), DOUBLE_STEPS)
        double[np.arange(DOUBLE_STEPS), axis] += rng.integers(-2, 3, DOUBLE_STEPS)
    return np.concatenate([single, np.clip(double, 0, grid.sizes - 1)])


def _best(score: Callable[[Ints], Floats], points: Ints) -> Best | None:
    if not len(points):
        return None
    scores = score(points)
    place = int(np.argmax(scores))
    return Best(points[place], float(scores[place]))
