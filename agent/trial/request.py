"""What a run's configuration asks for: the sweep file's parameters as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunefleet.objective import checks, runners
from prunefleet.objective.devices import LOCAL, device_names
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.sweepfile import (
    BLOCKS,
    DEFAULT_UPLOAD,
    F32,
    SAME,
    SINGLE,
    against,
    block,
    choices,
    code_sha256,
    options,
    upload_of,
)
from prunefleet.objective.trial import Candidate

ADDED = ("device", "devices", "host", "kept", "task_hash", "data_hash", "baseline_hash", "versions")
"""Keys that the agent adds to a run's configuration: a run that is tried again has them already."""


@dataclass(frozen=True)
class Request:
    """One trial as a sweep asks for it; `options` are the task's arguments.

    Of several `devices` the slowest counts. `baseline` is the dense model's SHA-256, `data` that of the data, `profile`
    an artifact, `code` an artifact or a SHA-256, where they are named. `beside` is the folder of the sweep file, where
    that is on this host.
    """

    task: str
    candidate: Candidate
    goal: Goal
    devices: tuple[str, ...] = (LOCAL,)
    lr: float | None = None
    distill: bool = False
    skip: bool = True
    timeout_minutes: float | None = None
    upload: str = DEFAULT_UPLOAD
    code: str | None = None
    data: str | None = None
    baseline: str | None = None
    profile: str | None = None
    runner: str = runners.DEFAULT
    threads: int = 1
    energy: str | None = None
    against: str = SAME
    options: Mapping[str, Any] = field(default_factory=dict)
    beside: Path | None = None

    def __post_init__(self) -> None:
        if elsewhere := [each for each in device_names("measure.device", self.devices) if each != LOCAL]:
            self._check_elsewhere(elsewhere[0])
        if self.code is not None:
            code_sha256(self.code)
        against(self.against)
        runners.measured_by(self.runner, self.threads, self.energy, self.candidate.precision)
        for name in ("lr", "timeout_minutes"):
            if getattr(self, name) is not None:
                checks.positive(f"recipe.{name}", getattr(self, name))
        for name in ("distill", "skip"):
            checks.truth(f"recipe.{name}", getattr(self, name))

    def _check_elsewhere(self, device: str) -> None:
        """A device elsewhere is sent the networks' files, through the server."""
        if self.upload == "metrics":
            raise BadInput("measure.device", device, "write local, or `upload: {value: bundles}`: it needs networks")
        if self.runner in runners.RUNNERS and self.runner not in runners.REMOTE:
            remedy = f"write {', '.join(runners.REMOTE)}, or local for measure.device"
            raise BadInput("measure.runner", self.runner, remedy)


def from_config(config: Mapping[str, Any]) -> Request:
    """Read a run's configuration. Raises `BadInput` for an unknown key or a value out of range."""
    given = {key: value for key, value in config.items() if key not in ADDED and not key.startswith("_")}
    known = (*SINGLE, *BLOCKS, "options", "ratio")
    for key in given:
        if key not in known:
            raise BadInput(f"parameters: unknown key {key}", given[key], checks.choose(key, known))
    measure, recipe = (_block(given, name) for name in ("measure", "recipe"))
    candidate = Candidate(
        ratios=checks.mapping("ratio", given.get("ratio", {})),  # type: ignore[arg-type]  # checked by Candidate
        **_among(measure, "precision"),
        **_among(recipe, "epochs", "seed", "importance", "ranking"),
    )
    return Request(
        task=given.get("task", ""),
        candidate=candidate,
        goal=Goal.from_parameters(_block(given, "objective")),
        devices=device_names("measure.device", measure.get("device", LOCAL)),
        upload=upload_of({"upload": {"value": given.get("upload", DEFAULT_UPLOAD)}}),
        code=_named(given, "code"),
        data=_named(given, "data"),
        baseline=_named(given, "baseline"),
        profile=_named(given, "profile"),
        **_among(measure, "runner", "threads", "energy", "against"),
        **_among(recipe, "lr", "distill", "skip", "timeout_minutes"),
        options=dict(checks.mapping("options", given.get("options", {}))),
    )


def _among(block: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the values that stand under these keys; the defaults of the others are those of the dataclass."""
    return {key: block[key] for key in keys if key in block}


def _block(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = dict(checks.mapping(name, given.get(name, {})))
    for key in found:
        if key not in BLOCKS[name]:
            raise BadInput(f"{name}: unknown key {key}", found[key], checks.choose(key, BLOCKS[name]))
    return found


def _named(given: Mapping[str, Any], key: str) -> str | None:
    """A reference that may be left out."""
    return checks.text(key, given[key]) if given.get(key) is not None else None


def from_sweep(config: Mapping[str, Any], file: Path | None = None) -> Request:
    """The request that a sweep `file` makes for its dense candidate: constants, and the first of several values.

    Of several precisions f32, where it is one of them.
    """
    parameters = config["parameters"]
    plain: dict[str, Any] = {key: _first(parameters[key]) for key in SINGLE if key in parameters}
    plain |= {name: {key: _first(spec) for key, spec in block(parameters, name).items()} for name in BLOCKS}
    precisions = choices(block(parameters, "measure").get("precision", {"value": F32}))
    if F32 in precisions:  # what all of them can be held against
        plain["measure"]["precision"] = F32
    found = from_config(plain | {"options": options(parameters)})
    return replace(found, beside=file.parent) if file else found


def _first(spec: object) -> Any:
    found = choices(spec)
    return found[0] if found else None
