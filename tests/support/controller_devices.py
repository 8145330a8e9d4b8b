"""The problem in a formula on two devices that wait for other groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from prunefleet.infra.controller.contract import StoredTrial
from prunefleet.infra.controller.pruning.channels import ChannelGrid, read
from prunefleet.infra.controller.pruning.search import PruningSearch
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, DeviceLatencies, Profile
from prunefleet.objective.profiles.space import Space
from prunefleet.objective.trial import Device

from support.controller import DENSE, GOAL, GROUPS, WIDTHS, Problem, sweep

# One device waits for the first groups, the other for the last ones; all groups cost the metric alike.
EARLY = Problem((0.05,) * 6, (2.0,) * 6, (2.0, 2.0, 2.0, 0.1, 0.1, 0.1), noise=0.0)
LATE = replace(EARLY, time=EARLY.time[::-1])
LAWS = {"board": EARLY, "local": LATE}


def device(name: str) -> Device:
    return Device(name, "cpu", "h", "c", 2, 8.0, "linux", {})


def untrained(law: Problem, curves: tuple[Curve, ...]) -> tuple[tuple[Mapping[str, int], float], ...]:
    """What a device took for each network of the profile: single groups, and every group halved."""
    alone = [{curve.group: kept} for curve in curves for kept in curve.kept]
    halved = {group.name: group.width // 2 for group in GROUPS}
    return tuple((kept, law.latency({**WIDTHS, **kept})) for kept in (halved, *alone))


def several(laws: Mapping[str, Problem] = LAWS) -> Profile:
    """A profile of devices with these laws; latencies beside `devices` are the slowest one's, as `plan` writes them."""
    profile = next(iter(laws.values())).profile()
    curves = tuple(
        replace(
            curve,
            latency_ratio=tuple(
                max(law.latency({**WIDTHS, curve.group: kept}) for law in laws.values()) for kept in curve.kept
            ),
        )
        for curve in profile.curves
    )
    devices = tuple(DeviceLatencies(device(name), untrained(law, curves)) for name, law in laws.items())
    return replace(profile, curves=curves, devices=devices)


PROFILE = several()
SPACE = ChannelGrid(sweep(profile=PROFILE), PROFILE)


def ratios_of(kept: Mapping[str, int]) -> dict[str, float]:
    return {name: law.latency(kept) for name, law in LAWS.items()}


def worst_score(kept: Mapping[str, int]) -> float:
    """The true score on the device where it is least."""
    return min(law.score(kept) for law in LAWS.values())


def measured(name: str, kept: Mapping[str, int], **more: Any) -> StoredTrial:
    """A trial of these channels, measured on all devices."""
    params = {f"ratio.{group}": ratio for group, ratio in Space(GROUPS).ratios(dict(kept)).items()}
    drop, by_device = EARLY.drop(kept), ratios_of(kept)
    told = {"latency_ratio": max(by_device.values()), "latency_ratios": by_device, "drop": drop, **more}
    return StoredTrial(name, params, "finished", metric=DENSE - drop, outcome="scored", **told)


def drawn(count: int, seed: int = 0, **more: Any) -> list[StoredTrial]:
    """Trials of candidates drawn at random."""
    rng, space = np.random.default_rng(seed), Space(GROUPS)
    ratios = [{group.name: float(rng.uniform(0, 0.6)) for group in GROUPS} for _ in range(count)]
    return [measured(f"t{place}", space.kept(each), **more) for place, each in enumerate(ratios)]


def searched(trials: list[StoredTrial], goal: Goal = GOAL, profile: Profile = PROFILE) -> PruningSearch:
    space = ChannelGrid(sweep(profile=profile), profile)
    return PruningSearch(space, profile, goal, read(space, trials), 0)
