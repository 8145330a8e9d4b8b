"""What pruning each group of a profile is worth, in a word: how much latency it saves, and what quality that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from prunefleet.objective.profiles.profile import Curve, Profile

CHEAP, DEAR, POINTLESS = "cheap", "dear", "pointless"
LEAST_SAVED = 0.03
"""A group that never saves more of the latency than this is pointless: sessions of a plan differ by as much."""


@dataclass(frozen=True)
class Worth:
    """A group pruned alone to about a half: to ``kept`` of its ``width`` channels.

    ``drop`` is the metric lost before any fine-tuning and ``saved`` the share of the dense latency, both fractions;
    ``most`` is the largest share saved at any level; ``word`` is cheap, dear or pointless.
    """

    group: str
    word: str
    kept: int
    width: int
    drop: float
    saved: float
    most: float

    def __str__(self) -> str:
        if self.word == POINTLESS:
            return f"pointless: {self.group} saves {self.most:.1%} of the latency at most"
        points, share = round(100 * self.drop, 1), round(100 * self.saved, 1)
        lost = f"{'gains' if points < 0 else 'loses'} {abs(points):.1f} points before fine-tuning"
        saved = f"{'adds' if share < 0 else 'saves'} {abs(share):.1f}% of the latency"
        return f"{self.word}: {self.group} at {self.kept} of {self.width} channels {lost} and {saved}"


def worths(profile: Profile) -> tuple[Worth, ...]:
    """All groups that have a curve, cheapest first: those that lose less than the median group for what they save are
    cheap, the others dear, and those that save nothing that could be told from noise pointless.
    """
    widths = profile.space.widths
    below = {curve.group: [kept for kept in curve.kept if kept < widths[curve.group]] for curve in profile.curves}
    found = [_halved(each, below[each.group], profile) for each in profile.curves if below[each.group]]
    prices = [_price(each) for each in found if each.word != POINTLESS]
    middle = median(prices) if prices else 0.0
    named = [Worth(**{**vars(each), "word": _word(each, middle)}) for each in found]
    return tuple(sorted(named, key=lambda each: (each.word == POINTLESS, _price(each))))


def _halved(curve: Curve, below: Sequence[int], profile: Profile) -> Worth:
    width = profile.space.widths[curve.group]
    kept = min(below, key=lambda count: abs(count - width / 2))
    metric, ratio = curve.points()[kept]
    most = 1 - min(curve.latency_ratio)
    word = POINTLESS if most < LEAST_SAVED else ""
    return Worth(curve.group, word, kept, width, profile.dense_metric - metric, 1 - ratio, most)


def _price(worth: Worth) -> float:
    """Metric lost per latency saved; what saves nothing at half of its channels counts as the least that is told."""
    return max(worth.drop, 0.0) / max(worth.saved, LEAST_SAVED)


def _word(worth: Worth, middle: float) -> str:
    if worth.word == POINTLESS:
        return POINTLESS
    return CHEAP if _price(worth) <= middle else DEAR
