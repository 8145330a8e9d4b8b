"""The only place in infra that talks through the `wandb` client: create a sweep, read it back, and its agents."""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError

from prunefleet.objective import wandb_login
from prunefleet.objective.errors import BadInput

OPEN = frozenset({"PENDING", "RUNNING", "PAUSED"})
LIVE = frozenset({"pending", "running", "preempting", "preempted"})
AWAY = (CommError, OSError, ValueError)  # what reading raises where the server does not answer, or has no such thing


@dataclass(frozen=True)
class RemoteRun:
    """A run as the server tells it: `name` is its 8-character id."""

    name: str
    state: str
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The trial's own word for how it ended, else the run's state."""
        return str(self.summary.get("outcome") or self.state)


@dataclass(frozen=True)
class RemoteSweep:
    """A sweep and its runs, oldest first."""

    path: str
    state: str
    run_cap: int | None
    runs: tuple[RemoteRun, ...]

    @property
    def ended(self) -> bool:
        """No further run will be issued and none is under way."""
        over = self.state.upper() in {"FINISHED", "CANCELED", "STOPPED"}
        return over and not any(run.state in LIVE for run in self.runs)

    def outcomes(self) -> dict[str, int]:
        """How many runs ended in each way."""
        counts: dict[str, int] = {}
        for run in self.runs:
            counts[run.outcome] = counts.get(run.outcome, 0) + 1
        return counts


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """What the client says where key or address are wrong, which it does not tell apart, as `BadInput`."""
    try:
        yield
    except (AuthenticationError, CommError, UsageError) as error:
        address = wandb_login.base_url()
        remedy = f"set WANDB_BASE_URL to a server's address and WANDB_API_KEY to a key of its: {_brief(error)}"
        raise BadInput("WANDB_BASE_URL", address, remedy) from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def default_entity() -> str:
    """The entity of the key in WANDB_API_KEY on the server in WANDB_BASE_URL."""
    return str(wandb.Api().default_entity)


def create_sweep(config: Mapping[str, Any], entity: str, project: str) -> str:
    """Register `config` as a new sweep; returns entity/project/id."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints addresses that `up` tells in its own words
        identifier = wandb.sweep(dict(config), entity=entity, project=project)
    return f"{entity}/{project}/{identifier}"


def open_sweeps(entity: str, project: str) -> dict[str, str]:
    """The project's sweeps that still take runs, by name as entity/project/id; of several with one name the newest."""
    return {str(sweep.name): f"{entity}/{project}/{sweep.id}" for sweep in _open(entity, project)}


def open_paths(entity: str, project: str) -> list[str]:
    """The project's sweeps that still take runs as entity/project/id, oldest first."""
    return [f"{entity}/{project}/{sweep.id}" for sweep in _open(entity, project)]


def _open(entity: str, project: str) -> list[Any]:
    try:
        sweeps = list(wandb.Api(timeout=30).project(project, entity).sweeps())
    except ValueError:  # the client's word for a project that is not there
        return []
    sweeps = [sweep for sweep in sweeps if str(sweep.state).upper() in OPEN]
    return sorted(sweeps, key=lambda sweep: str(sweep.createdAt))


@dataclass(frozen=True)
class Address:
    """The server that the client talks to, and the key it shows there."""

    url: str
    key: str


def address() -> Address:
    """Server and key as the client has them, from its variables or its own files."""
    api = wandb.Api(timeout=30)
    return Address(str(api.settings["base_url"]).rstrip("/"), str(api.api_key or ""))


def agents_of(path: str) -> dict[str, Any]:
    """A sweep's agents as W&B's public API tells of them, in the shape that the hub has for it.

    Raises `BadInput` for a sweep that is not there.
    """
    try:
        sweep = wandb.Api(timeout=30).sweep(path)  # type: ignore[no-untyped-call]
        found = _agents(sweep)
    except ValueError as error:
        raise BadInput("SWEEP", path, f"give a sweep of this server: {_brief(error)}") from error
    return {"sweep": path, "state": str(sweep.state), "held_hosts": [], "hub": False, "agents": found}


def _agents(sweep: Any) -> list[dict[str, Any]]:
    """The agents that a server names; where it names none, the hosts that the sweep's runs tell of."""
    try:
        return [_agent(*(getattr(agent, key, None) for key in _TOLD)) for agent in sweep.agents()]
    except CommError:
        runs = [(str(host), run.state) for run in sweep.runs if (host := run.config.get("host"))]
    live = {host for host, state in runs if state in LIVE}
    ended = Counter(host for host, state in runs if state not in LIVE)
    hosts = sorted({host for host, _ in runs})
    return [_agent(host, host, "running" if host in live else "idle", ended=ended[host]) for host in hosts]


_TOLD = ("name", "host", "state", "createdAt", "heartbeatAt", "totalRuns")


def _agent(
    name: str | None,
    host: str | None,
    state: str | None,
    since: str | None = None,
    heard: str | None = None,
    ended: int | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "host": host,
        "device": "",
        "state": (state or "").lower(),
        "hold": "",
        "run": None,
        "since": since,
        "heard": heard,
        "heard_s": None,
        "ended": ended,
        "failed": None,
        "versions": {},
        "actions": [],
    }


def sweep_config(path: str) -> dict[str, Any]:
    """The sweep file of the sweep entity/project/id. Raises `BadInput`."""
    try:
        with in_one_line():
            sweep = wandb.Api(timeout=30).sweep(path)  # type: ignore[no-untyped-call]
            return dict(sweep.config)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            "SWEEP", path, f"give ENTITY/PROJECT/SWEEP of a sweep on this server: {_brief(error)}"
        ) from error


def download(artifact: str, folder: Path) -> Path:
    """Put the files of an artifact (entity/project/name:version) into `folder`."""
    with contextlib.redirect_stdout(io.StringIO()):
        return Path(wandb.Api(timeout=30).artifact(artifact).download(root=str(folder)))


def newest_artifact(entity: str, project: str, kind: str, prefix: str) -> str | None:
    """The newest artifact of a project whose type is `kind` and whose name begins with `prefix`: name:version."""
    found = wandb.Api(timeout=30).artifact_collections(f"{entity}/{project}", kind)
    latest = [
        next(iter(collection.artifacts()), None) for collection in found if str(collection.name).startswith(prefix)
    ]
    newest = max((each for each in latest if each is not None), key=lambda each: str(each.created_at), default=None)
    return None if newest is None else str(newest.name)


def read_sweep(path: str) -> RemoteSweep:
    """The sweep at entity/project/id as it is now.

    Raises `wandb.errors.CommError` or `ValueError` when the server does not answer or does not know it.
    """
    sweep = wandb.Api(timeout=30).sweep(path)  # type: ignore[no-untyped-call]
    oldest_first = sorted(sweep.runs, key=lambda run: str(run.created_at))
    runs = [RemoteRun(run.id, run.state, dict(run.config), _plain(run.summary)) for run in oldest_first]
    return RemoteSweep(path, str(sweep.state), sweep.config.get("run_cap"), tuple(runs))


def _plain(summary: Any) -> dict[str, Any]:
    """The summary as a plain dictionary, without the client's own keys."""
    return {key: _value(value) for key, value in dict(summary).items() if not key.startswith("_wandb")}


def _value(value: Any) -> Any:
    """The client has a class of its own for a summary's inner dictionaries, which is no mapping."""
    return {key: _value(value[key]) for key in value.keys()} if hasattr(value, "keys") else value  # noqa: SIM118
