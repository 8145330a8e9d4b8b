"""`prunefleet up`: hub, dense model, profile, sweep, agents and answer on this machine, resumed where it was left."""

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prunefleet.infra.fleet.addresses import join_lines, reachable_from_elsewhere, sign_in_link
from prunefleet.infra.fleet.supervision import lost
from prunefleet.infra.fleet.supervision.pauses import Pauses
from prunefleet.infra.fleet.supervision.process import Impatience
from prunefleet.infra.fleet.supervision.supervise import Agent, Supervisor
from prunefleet.infra.fleet.up.agent_commands import run_step
from prunefleet.infra.fleet.up.answer_summary import answer_text, document, trials_table
from prunefleet.infra.fleet.up.display import Screen
from prunefleet.infra.fleet.up.hub_process import HubProcess
from prunefleet.infra.fleet.up.options import Options
from prunefleet.infra.fleet.up.state import State, hold
from prunefleet.infra.settings import cache_folder
from prunefleet.infra.wandb_api import RemoteSweep, create_sweep, default_entity, download, read_sweep
from prunefleet.objective.errors import BadInput
from prunefleet.objective.host_outcomes import VARIABLE as OUTCOMES
from prunefleet.objective.sweepfile import UPLOADS, read_sweep_file, upload_of

LOOK_EVERY = 3.0  # seconds between two looks at the sweep
TICK = 0.5


class Stopped(Exception):
    """The user asked to stop; what runs is handed back, and the same command goes on later."""


@dataclass
class Fleet:
    """What runs on this machine for one sweep, and how to end it."""

    options: Options
    screen: Screen
    state: State
    hub: HubProcess
    impatient: Impatience = field(default_factory=Impatience)
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(()))

    def check(self) -> None:
        """Raise `Stopped` once the user asked; called between any two things that take time."""
        if self.impatient.asked():
            raise Stopped

    def stop(self) -> None:
        """Agents first, so that the hub hears how their trials ended; then the hub."""
        if self.supervisor.busy():
            self.screen.say("Stopping the agents; their trials go back to the sweep (Ctrl-C again: at once).")
        self.supervisor.stop(self.impatient)
        self.hub.stop()

    def environment(self) -> dict[str, str]:
        """The environment of all that talks to the hub or computes: our commands on the path, one thread a process."""
        return {
            **os.environ,
            **client_environment(self.state),
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}",
            "WANDB_ENTITY": str(self.state["entity"]),
            "WANDB_PROJECT": self.options.project,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def step(self, *argv: str) -> None:
        """One command of the agent's room, its progress and what it found shown."""
        folder = self.options.data.resolve()
        (folder / "client").mkdir(exist_ok=True)
        env = {**self.environment(), "WANDB_DIR": str(folder / "client")}
        log, cwd = folder / "logs" / f"{argv[0]}.log", self.options.sweep_file.resolve().parent
        run_step(
            argv,
            env=env,
            log=log,
            cwd=cwd,
            show=self.screen.show,
            seconds=self.state.add_seconds,
            say=self.screen.say,
            check=self.check,
        )


def client_environment(state: Mapping[str, Any]) -> dict[str, str]:
    """What makes the wandb client talk to the hub, and quietly."""
    return {"WANDB_BASE_URL": str(state["url"]), "WANDB_API_KEY": str(state["api_key"]), "WANDB_SILENT": "true"}


def up(options: Options, screen: Screen | None = None) -> int:
    """Run the whole line; returns the exit code: 0 done, 130 stopped by the user. Raises `BadInput`, `StepFailed`."""
    config = read_sweep_file(options.sweep_file)
    with hold(options.data) as state, screen or Screen() as shown:
        data = options.data.resolve()
        fleet = Fleet(options, shown, state, HubProcess(data, options.host, options.port))
        fleet.impatient.install()
        shown.say(f"What trials send to the hub: {UPLOADS[upload_of(config['parameters'])]}")
        try:
            _run(fleet)
        except Stopped:
            fleet.stop()
            shown.say(
                f"Stopped. The same command goes on{' with sweep ' + state['sweep'] if 'sweep' in state else ''}."
            )
            return 130
        finally:
            fleet.stop()
    return 0


def _run(fleet: Fleet) -> None:
    """Hub, plan, sweep, trials, answer: each is skipped or gone on with where an earlier call brought it."""
    with fleet.state.timed("hub"):
        _start_hub(fleet)
    sweep = _sweep(fleet)
    with fleet.state.timed("trials"):
        view = _trials(fleet, sweep)
    fleet.supervisor.stop(fleet.impatient)
    answer = fleet.options.data.resolve() / "answer.json"
    with fleet.state.timed("answer"):
        fleet.step("answer", sweep, "--out", str(answer))
    _tell(fleet, view, json.loads(answer.read_text()))


def _start_hub(fleet: Fleet) -> None:
    ready = fleet.hub.start(fleet.check)
    # The first user's key is told once; afterwards only its hash is left in the hub.
    key = ready["api_key"] or fleet.state.get("api_key")
    if key is None:
        raise BadInput(
            "--data", str(fleet.options.data), "the first user's key is lost; make one with POST /admin/users"
        )
    fleet.state.save(url=ready["url"], api_key=key)
    os.environ.update(client_environment(fleet.state))
    fleet.state.save(entity=default_entity())
    fleet.screen.say(f"Hub at {ready['url']}")


def _sweep(fleet: Fleet) -> str:
    """The sweep's path; dense model, profile and sweep are made unless this very file was brought that far before."""
    digest = hashlib.sha256(fleet.options.sweep_file.read_bytes()).hexdigest()
    if fleet.state.get("sweep_file") == digest and "sweep" in fleet.state:
        fleet.screen.say(f"Going on with sweep {fleet.state['sweep']}")
    else:
        resolved = fleet.options.data.resolve() / "sweep.yaml"
        fleet.state.save(seconds={"hub": fleet.state.get("seconds", {}).get("hub", 0.0)})
        sweep_file = str(fleet.options.sweep_file.resolve())
        fleet.step("plan", sweep_file, "--out", str(resolved), "--mixed", str(fleet.options.mixed))
        config = yaml.safe_load(resolved.read_text())
        sweep = create_sweep(config, str(fleet.state["entity"]), fleet.options.project)
        fleet.state.save(sweep_file=digest, sweep=sweep)
    sweep = str(fleet.state["sweep"])
    _tell_the_page(fleet, sweep)
    _tell_how_to_join(fleet, sweep)
    return sweep


def _tell_the_page(fleet: Fleet, sweep: str) -> None:
    """The link signs its reader in for a while; a log gets the bare address too, for whoever reads it later."""
    url, entity = str(fleet.state["url"]), str(fleet.state["entity"])
    link = page(url, sweep)
    signed = sign_in_link(url, fleet.hub.admin_token, entity, link.removeprefix(url))
    if fleet.screen.console.is_terminal:
        fleet.screen.say(f"Page: {signed}")
        return
    fleet.screen.say(f"Page: {link}")
    fleet.screen.say(f"Sign in within ten minutes: {signed}")


def page(url: str, sweep: str) -> str:
    """The address of a sweep's page, given entity/project/id."""
    project, _, name = sweep.rpartition("/")
    return f"{url}/{project}/sweeps/{name}"


def _tell_how_to_join(fleet: Fleet, sweep: str) -> None:
    if not reachable_from_elsewhere(fleet.state["url"]):
        return
    fleet.screen.say("To add a machine: `Make the line for another host` on the page; it installs what it needs.")
    fleet.screen.say("Or paste there (PATH: its own environment with prunefleet[trial]):")
    for line in join_lines(fleet.state["url"], fleet.state["api_key"], sweep):
        fleet.screen.say(f"  {line}")


class SweepPoller(threading.Thread):
    """Reads the sweep again and again in the background; `latest` is the last answer.

    A read hangs while the hub is away, and the hub comes back only if somebody tends it meanwhile.
    """

    def __init__(self, sweep: str) -> None:
        super().__init__(daemon=True, name="sweep-poller")
        self._sweep, self._over = sweep, threading.Event()
        self.latest: RemoteSweep | None = None

    def run(self) -> None:
        """Read until told to end; a read that fails is repeated, for the hub may be starting."""
        while not self._over.is_set():
            with contextlib.suppress(Exception):  # the client raises many kinds; the next read decides
                self.latest = read_sweep(self._sweep)
            self._over.wait(LOOK_EVERY)

    def end(self) -> None:
        """Read no more."""
        self._over.set()


def _trials(fleet: Fleet, sweep: str) -> RemoteSweep:
    """Keep hub and agents running until the sweep has ended, or for ever where the user wants that."""
    data = fleet.options.data.resolve()
    cwd, outcomes = fleet.options.sweep_file.resolve().parent, data / "outcomes.jsonl"
    env, count = {**fleet.environment(), OUTCOMES: str(outcomes)}, range(1, fleet.options.agents + 1)
    lost.tell(env, sweep, lost.left_behind(data / "agents"))
    agents = [Agent(n, sweep, env, data / "agents", cwd) for n in count]
    fleet.supervisor = Supervisor(agents, outcomes, fleet.screen.say, Pauses((data, cache_folder())))
    poller = SweepPoller(sweep)
    poller.start()
    try:
        while not (poller.latest and poller.latest.ended and fleet.options.until_done):
            fleet.check()
            if fleet.hub.tend(fleet.check):
                fleet.screen.say("The hub had ended; it was started again")
            if not (poller.latest and poller.latest.ended):
                fleet.supervisor.tend()
            if poller.latest:
                fleet.screen.show("trials", standing(poller.latest) + fleet.supervisor.paused())
            time.sleep(TICK)
    finally:
        poller.end()
    return poller.latest


def standing(view: RemoteSweep) -> str:
    """One line about a sweep: runs so far, how they ended, the best score."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(view.outcomes().items()))
    told = [run.summary.get("score") for run in view.runs if run.outcome == "scored"]
    scores = [score for score in told if isinstance(score, int | float)]
    best = f"; best score {max(scores):.4f}" if scores else ""
    return f"{len(view.runs)}/{view.run_cap or '∞'} runs: {outcomes or 'none yet'}{best}"


def _tell(fleet: Fleet, view: RemoteSweep, answer: Mapping[str, Any]) -> None:
    """The table of the trials, the answer, and the file with both."""
    options = fleet.options
    fleet.screen.stop()
    fleet.screen.console.print(trials_table(view))
    for line in answer_text(answer):
        fleet.screen.say(line)
    if answer["winner"]:
        fleet.screen.say(f"Files of the best: {_files(options, answer['winner'])}")
    fleet.screen.say(
        f"Look again: prunefleet hub --data {options.data / 'hub'}, then {page(fleet.state['url'], view.path)}"
    )
    fleet.screen.say(f"Add a machine: prunefleet up {options.sweep_file} --host ADDRESS prints the line to paste there")
    text = json.dumps(document(view, options.agents, fleet.state.get("seconds", {}), answer), indent=1)
    options.answer.write_text(text + "\n")


def _files(options: Options, winner: Mapping[str, Any]) -> Path:
    """Where the winner's files lie: fetched from the hub, or where the trial left what was not to be uploaded."""
    if winner["artifact"] is None:
        return Path(winner["files"])
    return download(winner["artifact"], options.data / "winner" / winner["run"])
