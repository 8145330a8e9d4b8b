"""Runs that somebody else chooses: enqueued one by one, or scheduled by a local controller.

A local controller (`wandb.controller`) writes `{"schedule": [{"id", "data": {"args"}}], "earlystop": [run, …]}` into
its sweep and reads `{"scheduled": [{"id", "runid"}]}` back. `args` of null means that its search has come to an end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunefleet.infra.hub.runs import runs
from prunefleet.infra.hub.runs.lifecycle import request_stop
from prunefleet.infra.hub.runs.sweep_config import is_full, is_local
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, update
from prunefleet.infra.hub.store.errors import Conflict, Invalid
from prunefleet.infra.hub.store.rows import RunRow, SweepRow, SweepState

ENDED = (SweepState.CANCELED, SweepState.FINISHED)
REMEMBERED = 1000  # answers to a local controller, which looks at the latest
STOPPED_BY_CONTROLLER = "early_terminate: the local controller asked for it"


def enqueue(
    connection: Connection, sweep: SweepRow, config: Mapping[str, Any], display_name: str | None, now: float
) -> RunRow:
    """A run at the end of the sweep's queue; `config` is plain or as W&B wraps it, `{"k": {"value": v}}`.

    Raises `Conflict` for a sweep that has ended or is full.
    """
    if sweep.state in ENDED:
        raise Conflict(f"state: sweep {sweep.name} is {sweep.state} and takes no runs; resume it, or make another")
    if _is_full(connection, sweep):
        raise Conflict(f"run_cap: sweep {sweep.name} has its {sweep.config['run_cap']} runs; raise it, or make another")
    args = statements.plain(config)
    return runs.reread(connection, runs.create_in_sweep(connection, sweep, args, now, display_name=display_name))


def follow(connection: Connection, sweep: SweepRow, controller: Mapping[str, Any], now: float) -> None:
    """Do what a local controller asks for, each schedule once. Raises `Invalid` for what is none."""
    if not is_local(sweep.config):
        raise Invalid("controller: the sweep has no local controller; write controller: {type: local} into its file")
    schedule, stops = _schedule(controller), _names(controller.get("earlystop"))
    answer = dict(sweep.scheduler)
    if sweep.state not in ENDED:
        for key, args in schedule:
            answer |= _scheduled(connection, sweep, answer.get("scheduled", []), key, args, now)
    for run in statements.sweep_runs(connection, sweep.id) if stops else ():
        if run.name in stops:
            request_stop(connection, run, now, STOPPED_BY_CONTROLLER)
    update(connection, "sweep", sweep.id, controller=json.dumps(controller), scheduler=json.dumps(answer))


def is_exhausted(sweep: SweepRow) -> bool:
    """Whether a local controller has said that it has no more runs."""
    return sweep.scheduler.get("exhausted") is True


def _scheduled(
    connection: Connection,
    sweep: SweepRow,
    done: Sequence[Mapping[str, str]],
    key: str,
    args: Mapping[str, Any] | None,
    now: float,
) -> dict[str, Any]:
    """What changes in the answer to a local controller by one entry of its schedule."""
    if any(each["id"] == key for each in done):
        return {}
    if args is None or _is_full(connection, sweep):
        return {"exhausted": True}
    run = runs.reread(connection, runs.create_in_sweep(connection, sweep, statements.plain(args), now))
    return {"exhausted": False, "scheduled": [*done, {"id": key, "runid": run.name}][-REMEMBERED:]}


def _is_full(connection: Connection, sweep: SweepRow) -> bool:
    return is_full(sweep.config, sum(statements.sweep_states(connection, sweep.id).values()))


def _schedule(controller: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any] | None]]:
    entries = controller.get("schedule") or []
    if not isinstance(entries, list):
        raise Invalid(f"controller.schedule: got {type(entries).__name__}; send a list")
    return [_entry(each) for each in entries]


def _entry(entry: object) -> tuple[str, Mapping[str, Any] | None]:
    data = entry.get("data") if isinstance(entry, Mapping) else None
    args = data.get("args") if isinstance(data, Mapping) else ""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str) or not isinstance(args, Mapping | None):
        raise Invalid('controller.schedule: send entries such as {"id": "…", "data": {"args": {"lr": {"value": 1}}}}')
    return entry["id"], args


def _names(names: object) -> Sequence[str]:
    if names is not None and not isinstance(names, list):
        raise Invalid(f"controller.earlystop: got {type(names).__name__}; send a list of run ids")
    return [name for name in names or [] if isinstance(name, str)]
