"""A sweep's configuration: who chooses its runs, when it is full, and what of it cannot be served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import yaml

from prunefleet.infra.controller.contract import SweepSpec, run_cap
from prunefleet.infra.controller.stopping import hyperband, optimistic
from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.objective.errors import BadInput
from prunefleet.objective.sweepfile import DEFAULT_ENGINE

CUSTOM = "custom"
_CONTROLLER = "controller-"


def is_local(config: Mapping[str, Any]) -> bool:
    """Whether a local controller (`wandb.controller`) chooses the runs."""
    controller = config.get("controller")
    return isinstance(controller, Mapping) and controller.get("type") == "local"


def is_scheduled(config: Mapping[str, Any]) -> bool:
    """Whether `wandb sweep-scheduler` chooses the runs."""
    return config.get("scheduler") is not None


def searched_here(config: Mapping[str, Any]) -> bool:
    """Whether the hub chooses the runs; those of other sweeps are queued, by whomever."""
    return not (is_local(config) or is_scheduled(config) or config.get("method") == CUSTOM)


def controller_run(sweep_name: str) -> str:
    """The name of the run that holds a scheduler's log; it belongs to the project, not to the sweep."""
    return f"{_CONTROLLER}{sweep_name}"


def is_controller_run(run_name: str) -> bool:
    """Whether a run without a sweep holds a scheduler's log: the client never says that it has ended."""
    return run_name.startswith(_CONTROLLER)


def is_full(config: Mapping[str, Any], count: int) -> bool:
    """Whether `count` runs are all that the sweep may have."""
    cap = config.get("run_cap")
    return cap is not None and count >= int(cap)


def learns(config: Mapping[str, Any]) -> bool:
    """Whether what runs came to changes which ones the hub's search would choose next."""
    return config.get("method") not in ("random", "grid")


def has_models(config: Mapping[str, Any]) -> bool:
    """Whether the hub's own search has models of the sweep's trials, and may recommend one."""
    parameters = config.get("parameters")
    if config.get("method") != "bayes" or not isinstance(parameters, Mapping):
        return False
    ours = parameters.get("engine", {"value": DEFAULT_ENGINE}) == {"value": DEFAULT_ENGINE}
    return ours and "objective" in parameters and "profile" in parameters


class StopRule(Protocol):
    """Decides which runs of a sweep to give up on."""

    @property
    def ignored(self) -> list[str]:
        """What is left out beside other settings, a line each."""
        ...

    def to_stop(self, runs: Sequence[hyperband.RunHistory], *, maximise: bool) -> list[hyperband.StopDecision]:
        """The running runs to stop."""
        ...


RULES: dict[str, Callable[[Mapping[str, Any]], StopRule]] = {
    "hyperband": hyperband.Hyperband.from_config,
    "optimistic": optimistic.Optimistic.from_config,
}
KEYS = {"hyperband": hyperband.KEYS, "optimistic": optimistic.KEYS}


def stop_rule(config: Mapping[str, Any]) -> StopRule | None:
    """By what the hub stops runs early; None where it does not, or where the sweep's own controller does.

    Raises `BadInput`.
    """
    if config.get("early_terminate") is None or is_local(config) or is_scheduled(config):
        return None
    block = config["early_terminate"]
    if not isinstance(block, Mapping):
        raise BadInput("early_terminate", block, "give a mapping such as {type: hyperband, min_iter: 3}")
    if block.get("type") not in RULES:
        raise BadInput("early_terminate.type", block.get("type"), f"give {' or '.join(RULES)}")
    return RULES[block["type"]](block)


def check(config_yaml: str) -> dict[str, Any]:
    """The parsed configuration. Raises `Invalid` naming the field that cannot be served."""
    try:
        config = yaml.safe_load(config_yaml)
    except yaml.YAMLError as error:
        raise Invalid(f"config: not YAML ({error})") from error
    if not isinstance(config, dict):
        raise Invalid("config: write a mapping with method and parameters")
    try:
        _check_who(config)
        if searched_here(config):
            SweepSpec.from_config("check", config)
        run_cap(config.get("run_cap"))
        _check_stop(config)
    except BadInput as error:
        raise Invalid(str(error)) from error
    return config


def warnings(config: Mapping[str, Any]) -> list[str]:
    """What the configuration asks for that is taken and not acted on."""
    early = config.get("early_terminate")
    if not isinstance(early, Mapping):
        return []
    rule = stop_rule(config)
    if rule is None:
        return ["early_terminate: left to the sweep's own controller; this server stops no run of it"]
    kind = early["type"]
    unknown = [f"early_terminate.{key}: not a setting of {kind}; left out" for key in early if key not in KEYS[kind]]
    return [*unknown, *rule.ignored]


def _check_who(config: Mapping[str, Any]) -> None:
    controller, scheduler = config.get("controller"), config.get("scheduler")
    if controller is not None and (
        not isinstance(controller, Mapping) or controller.get("type", "cloud") not in ("cloud", "local")
    ):
        raise BadInput("controller", controller, "give {type: local}, or leave it out")
    if scheduler is not None and (not isinstance(scheduler, Mapping) or not isinstance(scheduler.get("engine"), str)):
        raise BadInput("scheduler", scheduler, "give a mapping with an engine, such as {engine: optuna}")
    if is_local(config) and is_scheduled(config):
        raise BadInput("scheduler", scheduler, "leave it out beside controller: {type: local}; one of them chooses")
    if not isinstance(config.get("method", ""), str):
        raise BadInput("method", config["method"], "give the search's name")


def _check_stop(config: Mapping[str, Any]) -> None:
    if stop_rule(config) is None:
        return
    metric = config.get("metric")
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        raise BadInput("metric.name", None, "name the metric that early_terminate compares runs by")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise BadInput("metric.goal", metric["goal"], "give minimize or maximize")
