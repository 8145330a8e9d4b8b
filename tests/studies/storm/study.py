"""A storm over a fleet: seeded faults on its machines and its hub, each healed, and how long each took to recover.

Machines that train, machines that measure, and the hub have a lane each: one fault at a time in a lane, so up to three
at once. A machine has recovered when the hub hears from it what it heard before: its agent, and where it trains an
agent with a run.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from studies.storm.fleet import DEVICES, TRIALS, Fleet

TICK_S = 0.5
RECOVERY_S = 60.0
KINDS = ("kill", "power", "stop", "cut", "slow")
HUB_KINDS = ("power", "stop", "cut")


@dataclass(frozen=True)
class Fault:
    """What happens to a machine, and for how long; `kill` ends one of its processes, drawn by a number."""

    kind: str
    machine: str
    seconds: float = 0.0
    draw: float = 0.0


@dataclass(frozen=True)
class Pace:
    """How thick faults come: `gaps` are the seconds from a recovery to the next fault among machines that train, among
    those that measure, and of the hub, and a third of them comes before the first; `longest` is how many a fault lasts
    at most."""

    gaps: tuple[float, float, float]
    longest: float


DENSE = Pace((30, 15, 90), 25)
"""A fault somewhere about every 20 s, which is as long as a trial of the storm takes: to find what gets lost."""
SPARSE = Pace((180, 90, 360), 25)
"""A fault somewhere about every minute, of each machine every five: to find what a fault costs."""


def drawn(seed: int, longest: float) -> tuple[list[list[Fault]], ...]:
    """Three lanes of faults: every kind on every machine before any comes again."""
    dice = random.Random(seed)

    def lane(labels: Sequence[str], kinds: Sequence[str]) -> list[Fault]:
        pairs = [(kind, label) for kind in kinds for label in labels]
        dice.shuffle(pairs)
        return [
            Fault(kind, label, dice.uniform(5, longest) if kind != "kill" else 0.0, dice.random())
            for kind, label in pairs
        ]

    lanes = ((TRIALS, KINDS), (tuple(DEVICES), KINDS), (("hub",), HUB_KINDS))
    return tuple([lane(*each) for _ in range(20)] for each in lanes)


@dataclass
class Lane:
    """Faults in a row: each begins, is healed, and is waited for."""

    faults: Iterator[Fault]
    next_at: float
    gap: float
    now: Fault | None = None
    heal_at: float = 0.0
    healed_at: float | None = None


@dataclass(frozen=True)
class Recovery:
    """A fault that was healed, and after how many seconds there was work again."""

    fault: Fault
    seconds: float


@dataclass
class Storm:
    """The storm over a fleet until it is told to end."""

    fleet: Fleet
    lanes: list[Lane]
    trials: int
    say: Callable[[str], None] = lambda text: None
    recoveries: list[Recovery] = field(default_factory=list)
    alive: list[tuple[float, dict[str, bool]]] = field(default_factory=list)
    """Seconds, and which machines could work then."""
    broken: list[str] = field(default_factory=list)

    def blow(self, until: Callable[[], bool], seconds: float) -> None:
        """Let faults come until that is so; what is under way then is healed."""
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            self._tick()
            time.sleep(TICK_S)
        for lane in self.lanes:
            if lane.now is not None and lane.healed_at is None:
                self._heal(lane)

    def _tick(self) -> None:
        now = time.time()
        for lane in self.lanes:
            if lane.now is None and now >= lane.next_at:
                self._begin(lane)
            elif lane.now is not None and lane.healed_at is None and now >= lane.heal_at:
                self._heal(lane)
            elif lane.now is not None and lane.healed_at is not None:
                self._look(lane)
        self.alive.append((now, {label: self._works(label) for label in (*TRIALS, *DEVICES)}))

    def _works(self, label: str) -> bool:
        """Whether nothing keeps that machine from its work: `slow` and `kill` do not."""
        down = [lane.now for lane in self.lanes if lane.now is not None and lane.healed_at is None]
        return not any(each.kind in HUB_KINDS and each.machine in (label, "hub") for each in down)

    def _begin(self, lane: Lane) -> None:
        fault = next(lane.faults, None)
        if fault is None:
            lane.next_at = float("inf")
            return
        lane.now, lane.healed_at, lane.heal_at = fault, None, time.time() + fault.seconds
        machine = self.fleet.machines[fault.machine]
        what = ""
        if fault.kind == "kill":
            what = self._kill_one(fault)
        elif fault.kind == "power":
            machine.kill_all()
        elif fault.kind == "stop":
            machine.signal(signal.SIGSTOP)
        elif fault.kind == "cut":
            machine.cut()
        else:
            machine.slow(True)
        self.say(f"{fault.kind} {fault.machine} {fault.seconds:.0f} s {what}")

    def _kill_one(self, fault: Fault) -> str:
        """Of all that an agent's supervisor started there, one process."""
        machine = self.fleet.machines[fault.machine]
        found = {pid: line for pid, line in machine.processes().items() if "storm/keep.py" not in line}
        if not found:
            return "nothing runs"
        pid = sorted(found)[int(fault.draw * len(found))]
        machine.signal(signal.SIGKILL, [pid])
        return found[pid][-60:]

    def _heal(self, lane: Lane) -> None:
        fault, machine = lane.now, self.fleet.machines[lane.now.machine] if lane.now else None
        assert fault is not None and machine is not None
        if fault.kind == "power":
            self.fleet.start_hub(wait=False) if fault.machine == "hub" else self.fleet.start(fault.machine)
        elif fault.kind == "stop":
            machine.signal(signal.SIGCONT)
        elif fault.kind == "cut":
            machine.join()
        elif fault.kind == "slow":
            machine.slow(False)
        lane.healed_at = time.time()

    def _look(self, lane: Lane) -> None:
        """Whether the machine is at work again; the hub's own healing starts the clock of all anew."""
        assert lane.now is not None and lane.healed_at is not None
        hub = next((each for each in self.lanes if each.now is not None and each.now.machine == "hub"), None)
        if hub is not None and hub is not lane:
            lane.healed_at = time.time()
            return
        labels = [label for label in (*TRIALS, *DEVICES) if self._free(label, lane)]
        waited = labels if lane.now.machine == "hub" else [lane.now.machine]
        seconds = time.time() - lane.healed_at
        if all(self.works_since(label, lane.healed_at) for label in waited):
            self.recoveries.append(Recovery(lane.now, seconds))
            self.say(f"   {lane.now.kind} {lane.now.machine} recovered in {seconds:.1f} s")
        elif seconds > 2 * RECOVERY_S:
            self.broken.append(f"{lane.now} not recovered in {seconds:.0f} s")
            self.say(self.broken[-1])
        else:
            return
        lane.now, lane.next_at = None, time.time() + lane.gap

    def _free(self, label: str, lane: Lane) -> bool:
        """Whether no other lane's fault is on that machine."""
        return not any(each.now is not None and each.now.machine == label for each in self.lanes if each is not lane)

    def works_since(self, label: str, since: float) -> bool:
        """Whether the hub heard since then of an agent there, and of a run that it has where there is one for it."""
        runs = label in TRIALS and self._more()
        table = "run JOIN agent ON agent.id = run.agent_id" if runs else "agent"
        heard = "run.heartbeat_at" if runs else "agent.heartbeat_at"
        sql = f"SELECT 1 FROM {table} WHERE agent.host = ? AND {heard} > ? LIMIT 1"
        with self.fleet.database() as found:
            return found.execute(sql, (self.fleet.machines[label].name, since)).fetchone() is not None

    def _more(self) -> bool:
        """Whether the sweep that trains has runs that nobody was given yet."""
        name = self.fleet.queues[TRIALS[0]].rpartition("/")[2]
        sql = "SELECT COUNT(*) FROM run JOIN sweep ON sweep.id = run.sweep_id WHERE sweep.name = ?"
        with self.fleet.database() as found:
            return int(found.execute(sql, (name,)).fetchone()[0]) < self.trials

    def shares(self) -> dict[str, float]:
        """What share of the time machines could work: all alike, and as far as the sweep needs them together.

        Of those of one kind that only measure one is enough; all kinds and the hub are needed for a trial.
        """
        kinds = [[label for label in DEVICES if DEVICES[label] == name] for name in dict.fromkeys(DEVICES.values())]
        all_alike = [sum(up.values()) / len(up) for _, up in self.alive]
        together = [
            sum(up[label] for label in TRIALS) / len(TRIALS) * all(any(up[label] for label in kind) for kind in kinds)
            for _, up in self.alive
        ]
        count = max(1, len(self.alive))
        return {"hosts_alive": sum(all_alike) / count, "hosts_usable": sum(together) / count}
