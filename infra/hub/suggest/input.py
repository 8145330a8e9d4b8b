"""What the controller is told of a sweep: its runs as stored trials, and its profile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunefleet.infra.controller.contract import StoredTrial
from prunefleet.infra.controller.parameters import ParameterSpace
from prunefleet.infra.hub.runs.metric_values import metric_value
from prunefleet.infra.hub.store.rows import RunRow, SweepRow
from prunefleet.infra.hub.store.states import ENDED_STATES
from prunefleet.objective.errors import BadInput

if TYPE_CHECKING:  # a client that searches beside another server needs no store
    from prunefleet.infra.hub.hub import Hub

PROFILE_FILE = "profile.json"
PREFIX = "profile-"


def stored_trial(run: RunRow, sweep: SweepRow, space: ParameterSpace) -> StoredTrial:
    """A run of a sweep as a controller sees it."""
    return trial_of(run.name, run.state.value, run.config, run.summary, sweep.config, space)


def trial_of(
    name: str,
    state: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    sweep: Mapping[str, Any],
    space: ParameterSpace,
) -> StoredTrial:
    """A run as a controller sees it, in the vocabulary of a run's summary; `sweep` is its sweep's file."""
    metric = sweep.get("metric") or {}
    return StoredTrial(
        name=name,
        params=space.read(config),
        state=state,
        value=metric_value(summary, str(metric.get("name", "")), metric.get("goal") == "maximize"),
        drop=summary.get("metric_drop"),
        latency_ratio=summary.get("latency_ratio"),
        outcome=summary.get("outcome"),
        baseline_ms=summary.get("baseline_p50_ms"),
        latency_ratios=_by_device(summary, "latency_ratio"),
        baselines_ms=_by_device(summary, "baseline_p50_ms"),
    )


def _by_device(summary: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What a summary tells of each of several devices; any client may write anything there."""
    devices = summary.get("devices")
    told = devices.items() if isinstance(devices, Mapping) else ()
    return {str(name): figures.get(key) for name, figures in told if isinstance(figures, Mapping)}


def prior_trials(runs: Sequence[RunRow], sweep: SweepRow, space: ParameterSpace) -> list[StoredTrial]:
    """Runs from before a sweep, as far as they have ended and have a value for each of its free parameters."""
    trials = [replace(stored_trial(run, sweep, space), prior=True) for run in runs if run.state in ENDED_STATES]
    return [trial for trial in trials if space.point(trial.params) is not None]


def profile_of(hub: Hub, sweep: SweepRow) -> Mapping[str, Any] | None:
    """The profile that a sweep names, as JSON; None where it names none.

    `latest` stands for the newest profile of the project. Raises `Missing` when there is no such artifact, `BadInput`
    when it holds no JSON.
    """
    name = profile_name(sweep.config)
    if name is None:
        return None
    name = _newest(hub, sweep) if name == "latest" else name.rpartition("/")[2]
    text = hub.artifacts.artifact_file(sweep.entity, sweep.project, name, PROFILE_FILE)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadInput(name, str(error), "make the profile anew with `prunefleet plan`") from None
    return document if isinstance(document, Mapping) else None


def profile_name(config: Mapping[str, Any]) -> str | None:
    """The profile that a sweep's file names; None where it names none."""
    name = _constant(config.get("parameters"), "profile")
    return name if isinstance(name, str) and name else None


def _newest(hub: Hub, sweep: SweepRow) -> str:
    project = hub.records.project(sweep.entity, sweep.project)
    named = [] if project is None else [each.name for each in hub.artifacts.collections(project)]
    profiles = [name for name in named if name.startswith(PREFIX)]
    if not profiles:
        raise BadInput("parameters.profile", "latest", "make a profile in this project with `prunefleet plan`")
    return f"{profiles[0]}:latest"


def _constant(parameters: object, name: str) -> object:
    block = parameters.get(name) if isinstance(parameters, Mapping) else None
    return block.get("value") if isinstance(block, Mapping) else None
