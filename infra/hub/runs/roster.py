"""Pure: a sweep's agents as people are told of them, with what their runs say of device, results and software."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from prunefleet.infra.hub.runs.lifecycle import OWN_PROGRAM
from prunefleet.infra.hub.store.rows import AgentRow, Hold, RunRow, RunState
from prunefleet.infra.hub.store.states import ENDED_STATES

T = TypeVar("T")
LAST_RUNS = 3  # of an agent or host, that may say what its device and software are
UNWELL = frozenset({RunState.FAILED, RunState.CRASHED})
COMPARED = (OWN_PROGRAM, "openvino", "torch")  # what figures of a sweep's hosts change with
_HELD = {Hold.PAUSE: "paused", Hold.DRAIN: "draining", Hold.STOP: "stopping"}
_LEFT = {Hold.NONE: "finished", Hold.PAUSE: "finished", Hold.DRAIN: "drained", Hold.STOP: "stopped"}


@dataclass(frozen=True)
class Member:
    """An agent: how it stands, the run it holds, what it has ended (`failed` of those by failing), what runs there."""

    row: AgentRow
    state: str
    device: str
    ended: int
    failed: int
    versions: Mapping[str, str]

    @property
    def actions(self) -> tuple[str, ...]:
        """What may be asked of it now: `resume` of one that has left gives its place free."""
        if self.row.left:
            return ("resume",) if self.row.hold and not self.row.followed else ()
        if self.row.hold:
            return tuple(action for action in ("resume", "drain", "stop") if action != self.row.hold)
        return ("pause", "drain", "stop")


def roster(agents: Sequence[AgentRow], runs: Sequence[RunRow], heard_since: datetime | None = None) -> list[Member]:
    """A sweep's agents, oldest first; one that was not heard since then, where that is given, is told to be silent."""
    last = _last(runs, lambda run: run.agent)
    ended = Counter(run.agent for run in runs if run.state in ENDED_STATES)
    failed = Counter(run.agent for run in runs if run.state in UNWELL)
    return [
        Member(
            row=agent,
            state=_state(agent, heard_since is not None and agent.heartbeat_at < heard_since),
            device=_first(last.get(agent.name, ()), device) or "",
            ended=ended[agent.name],
            failed=failed[agent.name],
            versions=_first(last.get(agent.name, ()), _versions) or {},
        )
        for agent in agents
    ]


def skew(runs: Sequence[RunRow]) -> str:
    """Which hosts of a sweep run unlike software, in one line; nothing where all run the same."""
    told: dict[str, dict[str, str]] = {}
    for last in _last(runs, lambda run: run.host).values():
        for run in last:
            for package, version in _versions(run).items():
                told.setdefault(_runs_on(run, package), {}).setdefault(package, version)
    return "; ".join(filter(None, (_skew_of(package, told) for package in COMPARED)))


def device(run: RunRow) -> str:
    """What a run says of the device that measured for it."""
    said = run.config.get("device")
    if isinstance(said, Mapping):
        return " · ".join(str(said[key]) for key in ("kind", "cpu") if said.get(key))
    return str(said or "")


def _last(runs: Sequence[RunRow], of: Callable[[RunRow], str | None]) -> dict[str, list[RunRow]]:
    """The last few runs of each agent or host, the latest first: to read the others' configuration takes long."""
    found: dict[str, list[RunRow]] = {}
    for run in reversed(runs):
        name = of(run)
        if name and len(found.setdefault(name, [])) < LAST_RUNS:
            found[name].append(run)
    return found


def _first(runs: Iterable[RunRow], read: Callable[[RunRow], T]) -> T | None:
    """What the latest of these runs says that says anything."""
    return next(filter(None, map(read, runs)), None)


def _versions(run: RunRow) -> dict[str, str]:
    said = run.config.get("versions")
    return {name: str(said[name]) for name in COMPARED if said.get(name)} if isinstance(said, Mapping) else {}


def _runs_on(run: RunRow, package: str) -> str:
    """The host whose package a run tells of: a device elsewhere tells of its own, but for what ran the trial."""
    said = run.config.get("device")
    elsewhere = said.get("host") if isinstance(said, Mapping) and package != OWN_PROGRAM else None
    return str(elsewhere or run.host)


def _skew_of(package: str, told: Mapping[str, Mapping[str, str]]) -> str:
    hosts: dict[str, list[str]] = {}
    for host, versions in sorted(told.items()):
        if package in versions:
            hosts.setdefault(versions[package], []).append(host)
    if len(hosts) < 2:
        return ""
    return f"{package} " + ", ".join(f"{version} on {_and(names)}" for version, names in sorted(hosts.items()))


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _state(agent: AgentRow, silent: bool) -> str:
    if agent.left:
        return _LEFT[agent.hold] if not agent.followed else "finished"
    if silent:
        return "silent"
    return _HELD.get(agent.hold) or ("running" if agent.run else "idle")
