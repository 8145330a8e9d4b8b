"""A child process with a log of its own that dies with us and stops in tiers: asked, asked again, killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LONGEST_LOG = 10 * 2**20
CORE = "wandb-core"
LISTENS = 0x10000  # SO_ACCEPTCON
# What is done to those that are still there, and the words for it; the caller has announced the first.
TIERS = ((signal.SIGTERM, ""), (signal.SIGTERM, "asked once more"), (signal.SIGKILL, "killed"))


class Child:
    """A command in a session of its own, so that Ctrl-C on the terminal reaches only us and we decide who ends when."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> None:
        self.name, self.log, self.started = name, log, time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                dies_with_us(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, also the id of the session that everything it starts belongs to."""
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def members(self) -> list[int]:
        """Process ids of it and of all it started that are still there: a killed agent leaves its trial behind."""
        self.ended()
        return session_members(self.pid)

    def signal(self, signum: signal.Signals) -> None:
        """Signal the process, which tells its own children; gone, those it left; for a kill, all of them."""
        members = self.members()
        if signum != signal.SIGKILL:
            members = [self.pid] if self.ended() is None else heads(members)
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signum)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_line(self) -> str:
        """The last line of its log that says something, for the message when it failed."""
        with contextlib.suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
            return next((line for line in reversed(lines) if line), "")
        return ""


def keep_short(log: Path, limit: int = LONGEST_LOG) -> None:
    """Move a log that has grown beyond `limit` bytes to `<name>.1`, over what was there; whoever writes on goes on.

    Logs are opened for appending, so that a process whose log is cut short writes at its new end. A full disk leaves
    the log as it is.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > limit:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def stop_all(
    children: Sequence[Child],
    patience: float,
    impatient: "Impatience | None" = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """End `children` together: each tier waits `patience` seconds for the last, less when the user asks again."""
    for signum, done in TIERS:
        alive = [child for child in children if child.members()]
        if alive and done:
            say(f"Still there, and {done}: {', '.join(child.name for child in alive)}")
        for child in alive:
            child.signal(signum)
        until = time.monotonic() + patience
        while any(child.members() for child in alive) and time.monotonic() < until:
            if impatient is not None and impatient.asked_again():
                break
            time.sleep(0.1)


class Impatience:
    """Remembers Ctrl-C and SIGTERM: the first asks to stop, each further one skips to the next tier."""

    def __init__(self) -> None:
        self.count = self._seen = 0

    def install(self) -> None:
        """Take over SIGINT and SIGTERM of this process."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, *_: object) -> None:
        self.count += 1

    def asked(self) -> bool:
        """Whether the user wants to stop; what was asked up to now counts as the first time."""
        self._seen = self.count
        return self.count > 0

    def asked_again(self) -> bool:
        """Whether the user has asked once more since last looked."""
        again, self._seen = self.count > self._seen, self.count
        return again


# Run by the child itself once it has asked for the signal: where we had gone before it could ask, it ends at once.
_STILL_OURS = '[ "$PPID" = "$1" ] || exit 143; shift; exec "$@"'


def dies_with_us(argv: Sequence[str]) -> list[str]:
    """`argv` run so that the kernel ends it when we are killed; plain where util-linux's setpriv is missing."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(argv)
    return [setpriv, "--pdeathsig", "TERM", "sh", "-c", _STILL_OURS, "sh", str(os.getpid()), *argv]


def heads(pids: Sequence[int]) -> list[int]:
    """Those of the processes that none of the others has started: a stop that comes twice is taken for a kill."""
    return [pid for pid in pids if _parent(pid) not in pids]


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def runs_of(agent: int) -> set[int]:
    """Process ids of the runs that a `wandb agent` has started and that are still there."""
    return {pid for pid in session_members(agent) if _parent(pid) == agent and _runs(pid)}


def _runs(pid: int) -> bool:
    """Whether a process is told which run it is for; the agent's own ones are not."""
    with contextlib.suppress(OSError):
        return b"\0WANDB_RUN_ID=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    return False


def is_deaf(agent: int) -> bool:
    """Whether a `wandb agent` lives on and is never heard by its server any more.

    What it speaks through was killed, or the agent has hung up on it: then it failed while its server was away, and
    waits up to ten minutes for the other's end. One that ended by itself does not count, for the client starts another
    where it wants one; see proc(5), stat.
    """
    killed, alive = False, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            head, _, rest = stat.read_text().rpartition(")")
            fields = rest.split()
            if int(fields[1]) == agent and head.partition("(")[2] == CORE:
                if fields[0] == "Z":
                    killed = killed or bool(int(fields[49]) & 0x7F)
                else:
                    alive.append(int(stat.parent.name))
    return all(map(_is_left, alive)) if alive else killed


def _is_left(core: int) -> bool:
    """Whether nobody is connected to the socket that a process listens at; see proc(5), net/unix, and linux/net.h."""
    own = set()
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{core}/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(str(each.readlink()))
        rows = [line.split(maxsplit=7) for line in Path(f"/proc/{core}/net/unix").read_text().splitlines()[1:]]
        # Only those that listen, and what they have accepted, have a path.
        named = [row for row in rows if len(row) == 8 and f"socket:[{row[6]}]" in own]
        listening = [row for row in named if int(row[3], 16) & LISTENS]
        return bool(listening) and len(named) == len(listening)
    return False


def session_members(session: int) -> list[int]:
    """Process ids that belong to `session`, zombies left out; read from /proc (see proc(5), stat)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found
