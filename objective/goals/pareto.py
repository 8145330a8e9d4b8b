"""Candidates that no other one dominates, in two dimensions: metric drop and latency ratio, both smaller is better.

Two dimensions need a sort, not a library: the libraries for many dimensions bring a solver or a copyleft licence along.
The tests hold :func:`hypervolume` against BoTorch's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunefleet.objective.errors import BadInput

Floats = NDArray[np.float64]
REFERENCE = (0.10, 1.0)
"""Drop and latency ratio from which on a candidate counts for nothing: ten points lost, or no faster than dense."""


def _points(points: ArrayLike) -> Floats:
    """Return ``points`` as an array of shape (n, 2); raises :class:`BadInput` for another shape."""
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise BadInput("points", array.shape, "give an array of shape (n, 2): drop, latency ratio")
    return array


def front(points: ArrayLike) -> list[int]:
    """Return the places of the non-dominated points, by rising drop; of equal points the first one counts.

    A point is dominated when another one is at most as large in both dimensions and smaller in one.
    """
    array = _points(points)
    order = np.lexsort((np.arange(len(array)), array[:, 1], array[:, 0]))
    kept, least = [], np.inf
    for place in order:
        if array[place, 1] < least:
            kept.append(int(place))
            least = array[place, 1]
    return kept


def hypervolume(points: ArrayLike, reference: tuple[float, float] = REFERENCE) -> float:
    """Return the area that the points dominate below ``reference`` (drop, latency ratio), each side in its own unit."""
    array = _points(points)
    inside = array[(array < np.asarray(reference)).all(axis=1)]
    area, ceiling = 0.0, reference[1]
    for place in front(inside):
        drop, ratio = inside[place]
        area += (reference[0] - drop) * (ceiling - ratio)
        ceiling = ratio
    return float(area)
