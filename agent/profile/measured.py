"""Measuring the points of a profile: quality on this host, latency at each place; a journal keeps what is finished."""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn

from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.merge import MergedSpace
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.measure.benchmark import DENSE, MeasurementSetup
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.profile.points import Effort, Kept, name_of
from prunefleet.agent.tasks.task import Task
from prunefleet.agent.tasks.training import recalibrate
from prunefleet.agent.trial.context import deploy
from prunefleet.agent.trial.places import MeasuringPlace

Report = Callable[[int, int, str], None]
"""Called with points done, points in all, and what was done last."""


@dataclass
class Measurements:
    """The measuring of one profile's points, and what the journal has of them."""

    task: Task
    network: nn.Module
    groups: Sequence[Group]
    space: MergedSpace
    metric: str
    journal: Journal
    places: Sequence[MeasuringPlace]
    precision: str
    effort: Effort
    began: float = field(default_factory=time.perf_counter)

    def run(self, todo: Sequence[tuple[str, Kept]], report: Report) -> None:
        """Measure what the journal has not, a session at a time; mixed candidates only while there is time."""
        self.dense_metric()
        open_points = [point for point in todo if not self.timed(point[1])]
        done = len(todo) - len(open_points)
        report(done, len(todo), "dense model evaluated")
        for first in range(0, len(open_points), self.effort.together):
            part = open_points[first : first + self.effort.together]
            if not any(group for group, _ in part) and time.perf_counter() - self.began > self.effort.seconds:
                report(done, done, f"time is over: {len(todo) - done} mixed candidates left out")
                return
            self._measure(part, partial(report, done, len(todo)))
            done += len(part)
            report(done, len(todo), f"{len(part)} networks timed")

    def dense_metric(self) -> float:
        """The dense model's metric under the same treatment as each point's."""
        return self.value(f"metric {DENSE}", lambda: self._quality(copy.deepcopy(self.network)))

    def value(self, key: str, measure: Callable[[], float]) -> float:
        """From the journal, else measured and noted there."""
        if key not in self.journal:
            self.journal.add(key, measure())
        return float(self.journal[key])

    def _quality(self, network: nn.Module) -> float:
        recalibrate(self.task, network)
        return self.task.evaluate(network, "validation", self.effort.examples)[self.metric]

    def _measure(self, part: Sequence[tuple[str, Kept]], note: Callable[[str], None]) -> None:
        """Quality and latency of some networks; devices elsewhere measure while quality is evaluated here."""
        networks = [self._pruned(kept) for _, kept in part]
        with tempfile.TemporaryDirectory() as folder:
            dense = deploy(self.network, self.task, Path(folder), self.precision, DENSE, rough=True)
            models = {
                name_of(kept): deploy(network, self.task, Path(folder), self.precision, f"model{place}", rough=True)
                for place, ((_, kept), network) in enumerate(zip(part, networks, strict=True))
            }
            alone = any(group for group, _ in part)
            limit = self.effort.session_s if alone else min(self.effort.session_s, self.effort.mixed_s)
            wanted = {place.device.name: self._untimed(place, models) for place in self.places}

            def setup(place: MeasuringPlace) -> MeasurementSetup:
                return MeasurementSetup(place.runner, place.device, time_limit_s=limit, throughput_s=0.0, loads=1)

            for place in self.places:
                if place.elsewhere and (own := wanted[place.device.name]):
                    place.elsewhere.ahead(own, dense, setup(place))
            for (group, kept), network in zip(part, networks, strict=True):
                self._evaluate(group, kept, network, note)
            for place in self.places:
                if own := wanted[place.device.name]:
                    timed = place.measure(own, dense, setup(place))
                    for name in own:
                        self.journal.add(self._label(place, name), timed.latencies[name].ratio)

    def _untimed(self, place: MeasuringPlace, models: Mapping[str, Exported]) -> dict[str, Exported]:
        """Those of the networks that were not timed there before an interruption."""
        return {name: model for name, model in models.items() if self._label(place, name) not in self.journal}

    def _label(self, place: MeasuringPlace, name: str) -> str:
        """Return the journal's name for a latency ratio."""
        return f"latency {name}" if len(self.places) == 1 else f"latency {place.device.name} {name}"

    def timed(self, kept: Kept) -> bool:
        """Return whether a network was timed at all places."""
        return all(self._label(place, name_of(kept)) in self.journal for place in self.places)

    def ratio(self, place: MeasuringPlace, kept: Kept) -> float:
        """The latency ratio of a network that was timed at that place."""
        return float(self.journal[self._label(place, name_of(kept))])

    def worst(self, kept: Kept) -> float:
        """The largest latency ratio of a network that was timed at all places."""
        return max(self.ratio(place, kept) for place in self.places)

    def _pruned(self, kept: Kept) -> nn.Module:
        ratios = self.space.searched.ratios(kept)
        return prune(self.network, self.task.example_input(), self.groups, self.space.kept(ratios)).network

    def _evaluate(self, group: str, kept: Kept, network: nn.Module, note: Callable[[str], None]) -> None:
        """The metric of a network whose `group` is pruned alone; others are timed only."""
        if group:
            metric = self.value(f"metric {name_of(kept)}", lambda: self._quality(network))
            note(f"{group} {kept[group]} channels: {self.metric} {metric:.3f}")
