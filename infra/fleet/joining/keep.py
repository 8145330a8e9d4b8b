"""`prunefleet agent`: keeps one `wandb agent` per GPU alive for a sweep, in the foreground, until told to stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prunefleet.infra.fleet.joining import keyfile
from prunefleet.infra.fleet.joining.keyfile import ROLE, Membership, state_folder
from prunefleet.infra.fleet.supervision import lost
from prunefleet.infra.fleet.supervision.pauses import Pauses
from prunefleet.infra.fleet.supervision.process import Impatience
from prunefleet.infra.fleet.supervision.supervise import LONGEST_PAUSE, Agent, Supervisor
from prunefleet.infra.settings import cache_folder
from prunefleet.objective.errors import BadInput
from prunefleet.objective.host_outcomes import VARIABLE as OUTCOMES

TICK = 0.5
LOCK = "agents.lock"
DEVICES = Path("/dev")
CARDS = "CUDA_VISIBLE_DEVICES"


def keep(word: str) -> int:
    """Keep agents for a sweep (entity/project/id, with key and address from the environment), or for one joined here.

    Returns 0 once SIGTERM or Ctrl-C was answered: agents hand their trials back, in tiers. A server that is away is
    waited for. Raises `BadInput` for a name that was not joined, or where another process keeps its agents.
    """
    impatient = Impatience()
    impatient.install()
    sweep, name, given = _what(word)
    folder = state_folder(name)
    with held(name):
        environment = {**os.environ, **given}
        lost.tell(environment, sweep, lost.left_behind(folder))
        agents, pauses = _agents(sweep, folder, environment), Pauses((folder, cache_folder(environment)))
        supervisor = Supervisor(agents, folder / "outcomes.jsonl", _say, pauses)
        _say(f"Keeping {len(supervisor.agents)} agent(s) of {sweep}; logs in {folder}; Ctrl-C or SIGTERM ends them")
        try:
            told = False
            while not impatient.asked():
                supervisor.tend()
                if (idle := supervisor.idle()) and not told:
                    _say(f"Nothing to do now: {sweep} is over or paused; asked again every {LONGEST_PAUSE:.0f} s")
                told = idle
                time.sleep(TICK)
        finally:
            if supervisor.busy():
                _say("Stopping: trials under way go back to the sweep (again: at once)")
            supervisor.stop(impatient)
    return 0


def _what(word: str) -> tuple[str, str, Mapping[str, str]]:
    """The sweep, a name for it, and what its agents' environment is given."""
    if "/" in word:
        sweep = path_of(word)
        return sweep, keyfile.named(sweep.split("/")[2]), {}
    joined = one(word)
    return joined.sweep, joined.name, {**joined.environment(), ROLE: joined.role}


def one(word: str) -> Membership:
    """What was joined under that name; without a name the only one. Raises `BadInput`."""
    names = keyfile.joined_here()
    if not word and len(names) != 1:
        told = f"give one of {', '.join(names)}" if names else "join a sweep first: `prunefleet join URL`"
        raise BadInput("NAME", word, told)
    found = keyfile.find(word or names[0])
    if found is None:
        raise BadInput("NAME", word, f"give one of {', '.join(names)}" if names else "nothing was joined here")
    return found


def path_of(sweep: str) -> str:
    """The sweep's path. Raises `BadInput` for what is none."""
    if not re.fullmatch(r"[^/\s]+/[^/\s]+/[A-Za-z0-9_.-]+", sweep):
        raise BadInput("SWEEP", sweep, "give ENTITY/PROJECT/SWEEP, as the sweep's page does")
    return sweep


def _agents(sweep: str, folder: Path, environment: Mapping[str, str]) -> list[Agent]:
    env = {
        **environment,
        "PATH": f"{Path(sys.prefix) / 'bin'}:{environment.get('PATH', os.defpath)}",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        OUTCOMES: str(folder / "outcomes.jsonl"),
    }
    # A device's queue is one device's, however many GPUs stand beside it.
    cards = [None] if environment.get(ROLE) == "measure" else gpus(environment)
    return [
        Agent(number, sweep, env if card is None else {**env, CARDS: card}, folder, Path.cwd())
        for number, card in enumerate(cards, start=1)
    ]


def gpus(environment: Mapping[str, str], devices: Path = DEVICES) -> list[str | None]:
    """Places for an agent each: the NVIDIA GPUs that the environment leaves visible; else None, the processor."""
    if CARDS in environment:
        named = [each.strip() for each in environment[CARDS].split(",")]
        return [each for each in named if each and each != "-1"] or [None]
    numbers = [match[1] for path in devices.glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", path.name))]
    return sorted(numbers, key=int) or [None]


@contextlib.contextmanager
def held(name: str) -> Iterator[None]:
    """Be the one process that keeps these agents, and say which in the file. Raises `BadInput` where another is."""
    folder = state_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"process {holder(name)} keeps its agents already: end that first, or `prunefleet leave {name}`"
            raise BadInput("NAME", name, told) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)


def holder(name: str) -> int | None:
    """The process that keeps the agents now."""
    try:
        with (state_folder(name) / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else None
    except OSError:
        return None
    return None


def _say(text: str) -> None:
    print(text, flush=True)
