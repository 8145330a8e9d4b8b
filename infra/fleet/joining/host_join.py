"""`prunefleet join`: a host takes part in a sweep, now and after every reboot; and `prunefleet invite`, its line."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from prunefleet.infra.fleet import hub_calls
from prunefleet.infra.fleet.addresses import reachable_from_elsewhere
from prunefleet.infra.fleet.joining import keep, keyfile, systemd
from prunefleet.infra.fleet.joining.keyfile import KEPT, TOKEN, Membership
from prunefleet.infra.wandb_api import sweep_config
from prunefleet.objective import wandb_login
from prunefleet.objective.devices import device_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.processes import python_module
from prunefleet.objective.sweepfile import PROGRAM

UNWELL = 1
VARIABLE = "PRUNEFLEET_JOIN_TOKEN"
SERVER_FROM = "wandb"
SERVER = ("WANDB_BASE_URL", "WANDB_API_KEY")
DOCTOR_S = 300


def join(url: str, sweep: str, name: str | None, token: str | None) -> int:
    """Check this host, get its key, keep it, and start its agents; returns the exit code, 1 where the host is unwell.

    The key is exchanged for `token` ("-": a line of standard input), which names the sweep; else it is the one of the
    last call, of the environment or of `wandb login`, or is asked for. Raises `BadInput`.
    """
    os.environ.pop(VARIABLE, None)  # nothing that is started here needs it
    url = hub_calls.address(url)
    _look({}, "the same again")
    joined = _joined(url, sweep, name, token)
    os.environ.update(joined.environment())
    # The token is spent by now, and the key is kept.
    again = f"`prunefleet join {url} {joined.sweep}{f' --name {name}' if name else ''}`"
    try:
        config = sweep_config(joined.sweep)
        ours = joined.sweep if PROGRAM in (config.get("command") or ()) else None
        _look(joined.environment(), again, ours)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the key is kept: {again} goes on") from None
    role = "measure" if device_of(str(config.get("name", ""))) else "trial"
    joined = replace(joined, role=role)
    joined.save()
    project, _, identifier = joined.sweep.rpartition("/")
    _say(f"Joined {joined.sweep} as {joined.name}: {_page(url)}/{project}/sweeps/{identifier}")
    return _start(joined.name)


def invite(sweep: str, minutes: int) -> list[str]:
    """The line that another host is joined with, and what to know of it. Raises `BadInput`."""
    url = hub_calls.address(wandb_login.base_url())
    if url == hub_calls.CLOUD:
        remedy = "set it to your hub's address; on wandb.ai `prunefleet join` takes an API key, no token"
        raise BadInput("WANDB_BASE_URL", url, remedy)
    key = hub_calls.key_for(url)
    if not key:
        raise BadInput("WANDB_API_KEY", "", f"set it to your key on {url}, or run `wandb login --host {url}`")
    lines = [hub_calls.invite(url, key, keep.path_of(sweep), minutes)]
    if not reachable_from_elsewhere(url):
        lines.append(f"# {url} is reached from this machine alone: start the hub with --host ADDRESS, and ask there")
    return lines


class Unwell(Exception):
    """The host, or its way to the server, has problems; they have been told, and this says how to go on."""


def _look(given: Mapping[str, str], again: str, sweep: str | None = None) -> None:
    """Tell what `prunefleet doctor` finds: of the host, or of the server that is `given`. Raises `Unwell`."""
    own = {name: value for name, value in os.environ.items() if name not in SERVER} | dict(given)
    argv = python_module("prunefleet.agent", "doctor", "--json", *([sweep] if sweep else []))
    done = subprocess.run(argv, capture_output=True, text=True, env=own, timeout=DOCTOR_S, check=False)
    try:
        found = json.loads(done.stdout[done.stdout.index("{") :])["findings"]
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BadInput("doctor", done.returncode, f"`prunefleet doctor` must run here: {lines[-1]}") from None
    # The host comes first; what is said of the server begins with the client's version.
    server = next((place for place, each in enumerate(found) if each["name"] == SERVER_FROM), len(found))
    found = found[server:] if given else found[:server]
    for each in found:
        remedy = f": {each['remedy']}" if each.get("remedy") else ""
        _say(f"{each['level']:<7} {each['name']}: {each['found']}{remedy}")
    if any(each["level"] == "problem" for each in found):
        raise Unwell(f"mend what is called a problem above, then {again}")


def _joined(url: str, sweep: str, name: str | None, token: str | None) -> Membership:
    """What this host is on the server, its key kept before anything else can fail."""
    more = {variable: os.environ[variable] for variable in KEPT if os.environ.get(variable)}
    before = keyfile.find(name or keep.path_of(sweep).split("/")[2]) if sweep and token is None else None
    if before is not None and (before.url, before.sweep) == (url, sweep):
        _say(f"Going on with the key in {before.path}")
        return replace(before, more={**before.more, **more})
    secret = _secret(url, token)
    if not secret.startswith(hub_calls.PREFIX):
        path = keep.path_of(sweep)
        return _kept(Membership(name or path.split("/")[2], url, secret, path, more=more))
    if sweep:
        raise BadInput("SWEEP", sweep, "leave it out: the token names its sweep")
    if name:
        keyfile.named(name)  # before the token is spent
    answer = hub_calls.exchange(url, secret)
    path = keep.path_of(answer["sweep"])
    return _kept(Membership(name or path.split("/")[2], url, answer["api_key"], path, answer["extra"], TOKEN, more))


def _kept(joined: Membership) -> Membership:
    """Write the key down; one that was made for this host before is given back."""
    before = keyfile.find(joined.name)
    if before is not None and (before.url, before.sweep) != (joined.url, joined.sweep):
        _give_back(joined)
        raise BadInput("--name", joined.name, f"it stands for {before.sweep} here: give another, or leave that first")
    joined.save()
    if before is not None and before.api_key != joined.api_key:
        _give_back(before)
    return joined


def _give_back(joined: Membership) -> None:
    """Revoke a key that was made for this host and is not kept."""
    if joined.key_from != TOKEN:
        return
    try:
        hub_calls.give_up(joined.url, joined.api_key)
    except (hub_calls.Refused, hub_calls.Away) as error:
        _say(f"A key of this host's could not be revoked: {error}; `prunefleet hub keys list` at the hub tells it")


def _secret(url: str, token: str | None) -> str:
    """A token or a key, from where the user has it; what is typed is not shown."""
    if token is None and (found := hub_calls.key_for(url)):
        return found
    if token is None and sys.stdin.isatty():
        token = getpass.getpass(f"Join token, or API key on {url}: ")
    if token == "-":  # noqa: S105 - a word for standard input
        token = sys.stdin.readline()
    if not (token or "").strip():
        raise BadInput(VARIABLE, "", "set it to a join token, or WANDB_API_KEY to your API key and give the sweep")
    return str(token).strip()


def _start(name: str) -> int:
    """A service that outlives this terminal and the next reboot; without systemd, agents in this terminal."""
    if not systemd.present():
        _say("This user has no systemd here: the agents run in this terminal until Ctrl-C or SIGTERM.")
        _say(f"Whatever keeps programs running here may start the same: prunefleet agent {name}")
        return keep.keep(name)
    try:
        systemd.start(name)
    except systemd.Failed as error:
        remedy = f"{error}; or keep this running: prunefleet agent {name}"
        raise BadInput("systemctl --user", systemd.unit(name), remedy) from None
    _say(f"Its agents run as {systemd.unit(name)}: journalctl --user -u {systemd.unit(name)}")
    if not systemd.lingers():
        _say("So that they also run when you are not signed in, and after a reboot: sudo loginctl enable-linger $USER")
    return 0


def _page(url: str) -> str:
    return "https://wandb.ai" if url == hub_calls.CLOUD else url


def _say(text: str) -> None:
    print(text, flush=True)
