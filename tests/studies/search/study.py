"""`make bench-search`: searches on instances of the synthetic pruning bench, side by side, remembered one by one.

The bench is a folder of its own (`SEARCHBENCH`), whose `bench.run` plays one search on one instance; its docstring and
`problem.py` tell the family of problems, and whose `judge.py` says who is better. What is done stays in the results,
so a run that was ended goes on.
"""

import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from support.paths import ROOT
from support.side_by_side import side_by_side

OURS = "tests.bench.search.plugin:PruneFleet"
SHUFFLED = "tests.bench.search.plugin:Shuffled"
QLOGNEI = "tests.bench.search.qlognei:QLogNei"
BASE = "wandb"
SIDE_BY_SIDE = 2
TRIES = 5


@dataclass(frozen=True)
class Cell:
    """One kind of instance, who plays on it, and the bars of the first player against the base.

    `wins` is the share of instances that it must win; 0 leaves wins and the ratio's upper bound out.
    """

    dim: int
    objective: str = "A"
    pending: int = 8
    players: tuple[str, ...] = (OURS, BASE)
    ratio: float = 0.5
    bound: float = 0.65
    wins: float = 0.85
    budget: int = 50
    count: int = 20

    def key(self, player: str, seed: int) -> str:
        """What one game is remembered under."""
        return f"{self.dim}/{self.objective}/{self.pending}/{self.budget}/{player}/{seed}"


CELLS = {
    "16 groups": Cell(16, players=(OURS, BASE, "optgp", "tpe", QLOGNEI, "random")),
    "24 groups": Cell(24),
    "most accurate": Cell(16, "B"),
    "fastest": Cell(16, "D"),
    "front": Cell(16, "C", players=(OURS, BASE, "random"), ratio=0.65, bound=0.8),
    "one agent": Cell(16, pending=1),
    "8 groups": Cell(8, ratio=0.75, bound=0.95, wins=0.7),
    "shuffled curves": Cell(16, players=(SHUFFLED, BASE), ratio=0.9, wins=0),
}
KEPT = ("rec", "curve", "simple", "t_ask_max", "t_ask_mean", "lat_calls", "opt")


def folder() -> Path:
    """Where the bench lies."""
    found = Path(os.environ.get("SEARCHBENCH") or ROOT.parent / "shared" / "searchbench").resolve()
    assert (found / "judge.py").exists(), f"SEARCHBENCH: got {found}; give the folder that has judge.py and bench.py"
    return found


def play(dim: int, objective: str, pending: int, budget: int, player: str, seed: int, salt: str) -> dict[str, Any]:
    """One game; in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path[:0] = [str(folder()), str(ROOT)]
    from bench import run  # type: ignore[attr-defined]

    for left in reversed(range(TRIES)):
        try:
            record = run(player, dim, budget, pending, seed, objective, salt)
            break
        except json.JSONDecodeError:  # its file of optima, read first of all, is just being written for the other game
            if not left:
                raise
    return {name: record[name] for name in KEPT}


def missing(cell: Cell, known: dict[str, Any], salt: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Play what is not known yet, two games at a time; each with its key, as it ends."""
    games = {cell.key(player, seed): (player, seed) for seed in range(count) for player in cell.players}
    with side_by_side(SIDE_BY_SIDE) as pool:
        waiting = {
            pool.submit(play, cell.dim, cell.objective, cell.pending, cell.budget, player, seed, salt): key
            for key, (player, seed) in games.items()
            if key not in known
        }
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def load(path: Path) -> dict[str, Any]:
    """The results so far."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def judged(cell: Cell, known: dict[str, Any], salt: str, count: int) -> dict[str, Any]:
    """What the bench's own judge.py says of the first player's games and the base's: its one line.

    The program runs as it is; the games that it asks for are those that were played, not played once more.
    """

    def played(player: str, dim: int, budget: int, pending: int, seed: int, objective: str, given: str) -> Any:
        asked = Cell(dim, objective, pending, budget=budget)
        assert given == salt
        return known[asked.key(player, seed)]

    games = ModuleType("bench")
    games.run = played  # type: ignore[attr-defined]
    bars = {"max-ratio": cell.ratio, "max-bound": cell.bound if cell.wins else "inf", "min-wins": cell.wins}
    what = {"n": count, "dim": cell.dim, "budget": cell.budget, "q": cell.pending, "obj": cell.objective, "salt": salt}
    options = [text for name, value in (what | bars).items() for text in (f"--{name}", str(value))]
    argv = ["judge.py", "--plugin", cell.players[0], "--base", BASE, *options]
    said = io.StringIO()
    with contextlib.ExitStack() as around:
        around.enter_context(mock.patch.dict(sys.modules, bench=games))
        around.enter_context(mock.patch.object(sys, "argv", argv))
        around.enter_context(contextlib.redirect_stdout(said))
        around.enter_context(contextlib.suppress(SystemExit))
        runpy.run_path(str(folder() / "judge.py"), run_name="__main__")
    return dict(json.loads(said.getvalue()))
