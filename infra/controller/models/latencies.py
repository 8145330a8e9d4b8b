"""The latency on each device that a sweep is for, of which the slowest counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prunefleet.infra.controller.models.accuracy import LatencyModel
from prunefleet.infra.controller.models.kernels import Floats
from prunefleet.objective.profiles.profile import Profile


class Latencies:
    """One model of the latency ratio for each device of a profile, in its order; one model where it names none.

    `observed` has, for each device, kept channels [n, columns] and latency ratios [n] that trials measured there.
    A model knows nothing of the other devices: their laws may differ.
    """

    def __init__(self, profile: Profile, observed: Sequence[tuple[Floats, Floats]]) -> None:
        self._models = tuple(LatencyModel(own, *each) for own, each in zip(_by_device(profile), observed, strict=True))

    def with_pending(self, kept: Floats) -> Latencies:
        """Return the models with pending `kept` [n, columns] imputed: observed as they expect them."""
        twin = object.__new__(Latencies)
        twin._models = tuple(model.with_pending(kept) for model in self._models)
        return twin

    def sample(self, kept: Floats, normals: Floats) -> Floats:
        """Latency ratios [devices, samples, n] for standard normal numbers [samples, devices], or [samples, 1] for all.

        Devices err apart from each other: what one measured says nothing of the next.
        """
        own = np.broadcast_to(normals, (len(normals), len(self._models)))
        models = enumerate(self._models)
        return np.stack([model.sample(model.predict(kept), own[:, [place]]) for place, model in models])


def slowest(ratios: Floats) -> Floats:
    """The latency ratios [samples, n] that count, of those on each device [devices, samples, n]."""
    return np.asarray(ratios.max(axis=0))


def _by_device(profile: Profile) -> tuple[Profile, ...]:
    """The profile as each device alone would have it: curves and latencies beside `devices` are the slowest one's."""
    if not profile.devices:
        return (profile,)
    return tuple(replace(profile, curves=(), latencies=each.latencies, devices=()) for each in profile.devices)
