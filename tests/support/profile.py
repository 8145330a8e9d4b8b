"""A profile by hand: straight curves, later groups cheaper to prune than earlier ones."""

from prunefleet.objective.profiles.profile import Curve, Profile
from prunefleet.objective.profiles.space import Space


def straight_profile(space: Space, dense: float, lost: float, saved: float) -> Profile:
    """Pruned away the first group would lose `lost` of the metric, each group save `saved` of the latency."""
    curves = []
    for place, spec in enumerate(space.groups):
        kept = space.levels(spec.name)
        gone = [1 - count / spec.width for count in kept]
        metric = tuple(dense - lost / (1 + place) * share for share in gone)
        curves.append(Curve(spec.name, kept, metric, tuple(1 - saved * share for share in gone)))
    named = {"task": "t", "network_hash": "n", "baseline_hash": "b", "device": "cpu", "precision": "f32"}
    return Profile(**named, groups=space.groups, metric="top1", dense_metric=dense, curves=tuple(curves))
