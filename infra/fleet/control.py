"""`prunefleet agents`: who works on a sweep, and pause, resume, drain or stop one agent, or all of a host.

The hub has an address of its own for this, which takes the API key. Elsewhere agents are listed as far as W&B's public
API tells of them.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from prunefleet.infra.wandb_api import Address, address, agents_of, default_entity, in_one_line, open_paths
from prunefleet.objective.errors import BadInput

ACTIONS = ("pause", "resume", "drain", "stop")
NEEDS_HUB = "to pause, resume, drain or stop an agent its server must be prunefleet's hub"
TIMEOUT_S = 30.0
Told = dict[str, Any]


def use_folder_of_up(data: Path) -> str:
    """Where no key is set, be the user of the hub that `prunefleet up` runs in `data`; its sweep, or ""."""
    if os.environ.get("WANDB_API_KEY"):
        return ""
    try:
        known = json.loads((data / "up.json").read_text())
        os.environ |= {"WANDB_BASE_URL": str(known["url"]), "WANDB_API_KEY": str(known["api_key"])}
    except (OSError, ValueError, KeyError):
        return ""  # the client may know a key from its own files, or says that it has none
    return str(known.get("sweep", ""))


def sweeps(sweep: str, project: str) -> list[str]:
    """The sweep as entity/project/id, whichever parts of that were given; of none, the project's that take runs."""
    with in_one_line():
        if not sweep:
            return open_paths(default_entity(), project)
        parts = sweep.strip("/").split("/")
        if len(parts) > 3 or not all(parts):
            raise BadInput("SWEEP", sweep, "give it as ENTITY/PROJECT/ID")
        missing = [default_entity(), project] if len(parts) == 1 else [default_entity()]
        return ["/".join(parts if len(parts) == 3 else [*missing, *parts])]


def listed(paths: Sequence[str]) -> list[Told]:
    """What is told of each sweep and its agents."""
    with in_one_line():
        server = address()
        return [_ask(server, path) or agents_of(path) for path in paths]


def asked(paths: Sequence[str], action: str, target: str) -> list[Told]:
    """Ask an agent, or all of a host, on those of the sweeps where there is one. Raises `BadInput` where on none."""
    known = listed(paths)
    concerned = [told for told in known if target in _names(told)]
    if not concerned:
        raise BadInput("AGENT", target, _there_is(known))
    if not all(told["hub"] for told in concerned):
        raise BadInput(f"agents {action}", target, NEEDS_HUB)
    with in_one_line():
        server = address()
        return [_ask(server, told["sweep"], {"action": action, "agent": target}) or told for told in concerned]


def present(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The agents that are there, and those that left a place that is held."""
    return [agent for agent in told["agents"] if agent["state"] != "finished"]


def _names(told: Told) -> set[str]:
    return {str(agent[key]) for agent in told["agents"] for key in ("name", "host")}


def _there_is(known: Sequence[Told]) -> str:
    agents = [agent for told in known for agent in present(told)]
    if not agents:
        return "no agent works on " + (", ".join(told["sweep"] for told in known) or "a sweep of this project")
    return "there is " + ", ".join(f"{agent['name']} on {agent['host']}" for agent in agents)


def _ask(server: Address, path: str, question: Mapping[str, str] | None = None) -> Told | None:
    """What the hub tells of a sweep's agents, once it has done as asked; None where the server is no such hub."""
    entity, project, name = path.split("/")
    url = f"{server.url}/{entity}/{project}/sweeps/{name}/agents.json"
    key = base64.b64encode(f"api:{server.key}".encode()).decode()
    headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json", "Accept": "application/json"}
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the server that the client talks to
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        _refuse(error, path, question)
        return None
    except ValueError:  # a page for people
        return None
    except OSError as error:
        remedy = f"it does not answer ({error}); look whether it runs"
        raise BadInput("WANDB_BASE_URL", server.url, remedy) from error
    return {**told, "hub": True} if isinstance(told, dict) and "agents" in told else None


def _refuse(error: urllib.error.HTTPError, path: str, question: Mapping[str, str] | None) -> None:
    """Raises `BadInput` for what a hub refuses; its words begin with the field, as all of ours do."""
    with error:
        try:
            said = str(json.load(error)["error"])
        except (ValueError, KeyError, TypeError):
            return
    if said.startswith("sweep:"):
        raise BadInput("SWEEP", path, "it is not on this server; look at its address")
    if question is not None or error.code == 401:
        field, _, rest = said.partition(":")
        raise BadInput(field, (question or {}).get("agent", ""), rest.partition("; ")[2] or rest)


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: the key is for the one server."""

    def redirect_request(self, *_: object) -> None:
        """Nothing."""


_OPENER = urllib.request.build_opener(_Straight)


def day(moment: object) -> str:
    """A moment as the day and minute of this machine's clock."""
    return datetime.fromisoformat(str(moment)).astimezone().strftime("%m-%d %H:%M") if moment else ""
