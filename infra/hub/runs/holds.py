"""What people ask of agents: to take no run for a while, or to leave the sweep; it stands until they ask to resume.

A hold of an agent also applies to the agent that replaces it on the same host. A hold of a host applies to all its
agents of the sweep, and to any that joins from there later. So what starts agents again when they end (`prunefleet up`,
systemd) starts one that waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, execute, update
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.store.rows import AgentRow, Hold

LEAVING = frozenset({Hold.DRAIN, Hold.STOP})
ACTIONS = {"pause": Hold.PAUSE, "resume": Hold.NONE, "drain": Hold.DRAIN, "stop": Hold.STOP}
MEANING = {
    "pause": "the run under way goes on, and it gets no other",
    "resume": "it works again",
    "drain": "the run under way ends, then it leaves",
    "stop": "the run under way goes back to the sweep, then it leaves",
}
NAMED = 12  # agents and hosts that a refusal lists


def ask(connection: Connection, sweep_id: int, action: str, target: str, now: float) -> list[AgentRow]:
    """Pause, resume, drain or stop one agent by its name, or all of a host; the agents that it concerns.

    Raises `Invalid` for another action, `Missing` for what is neither agent nor host here, `Conflict` for an agent
    that has left.
    """
    if action not in ACTIONS:
        raise Invalid(f"action: got {action[:40]!r}; use one of {', '.join(ACTIONS)}")
    hold, known = ACTIONS[action], statements.sweep_agents(connection, sweep_id)
    found = [agent for agent in known if agent.name == target]
    if found:
        concerned = _line(connection, found[0]) if hold is Hold.NONE else [_present(found[0])]
    else:
        concerned = _host(connection, sweep_id, hold, [agent for agent in known if agent.host == target], now)
    if not concerned:
        raise Missing(f"agent: got {target[:80]!r}; {_there_is(known)}")
    for agent in concerned:
        update(connection, "agent", agent.id, hold=hold.value)
    touched = {agent.id for agent in concerned}
    return [agent for agent in statements.sweep_agents(connection, sweep_id) if agent.id in touched]


def joined(connection: Connection, agent_id: int, *, held: bool) -> None:
    """A new agent takes the place of one that was held and has left, and waits there, or because its host is `held`."""
    before = statements.held_before(connection, agent_id)
    if before is not None and before.left:
        _follow(connection, before.id, agent_id)
    elif held:
        update(connection, "agent", agent_id, hold=Hold.PAUSE.value)


def rests(connection: Connection, agent: AgentRow, silence: float, now: float) -> bool:
    """Whether the agent is to take no run; one that takes the place of a held agent that fell silent is held from now.

    Whether it does is not known before that one is heard again, or was silent for `silence` seconds.
    """
    if agent.hold:
        return True
    before = statements.held_before(connection, agent.id)
    if before is not None and (before.left or now - before.heartbeat_at.timestamp() > silence):
        _follow(connection, before.id, agent.id)
    return before is not None


def _follow(connection: Connection, before: int, agent_id: int) -> None:
    update(connection, "agent", before, follower_id=agent_id)
    update(connection, "agent", agent_id, hold=Hold.PAUSE.value)


def _present(agent: AgentRow) -> AgentRow:
    if agent.left:
        raise Conflict(f"agent: {agent.name} has left the sweep; name one that is there, or its host {agent.host}")
    return agent


def _line(connection: Connection, agent: AgentRow | None) -> list[AgentRow]:
    """An agent, and those that took its place one after the other."""
    return [] if agent is None else [agent, *_line(connection, statements.follower(connection, agent.id))]


def _host(connection: Connection, sweep_id: int, hold: Hold, agents: Sequence[AgentRow], now: float) -> list[AgentRow]:
    """A host's agents that a hold concerns, or all where it ends; whoever joins from there is to wait, or no longer."""
    if not agents:
        return []
    host = agents[0].host
    if hold is Hold.NONE:
        execute(connection, "DELETE FROM held_host WHERE sweep_id = :id AND host = :host", id=sweep_id, host=host)
        return list(agents)
    sql = "INSERT OR IGNORE INTO held_host (sweep_id, host, held_at) VALUES (:id, :host, :now)"
    execute(connection, sql, id=sweep_id, host=host, now=now)
    return [agent for agent in agents if not agent.left] or list(agents[-1:])


def _there_is(agents: Sequence[AgentRow]) -> str:
    there = [agent for agent in agents if not agent.left or (agent.hold and not agent.followed)]
    if not there:
        return "no agent works on this sweep"
    hosts = sorted({agent.host for agent in there})
    return f"there is {_few([agent.name for agent in there])} on {_few(hosts)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
