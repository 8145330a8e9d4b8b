"""`prunefleet cache show | clear`: what this host's cache folder holds, and making room."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from prunefleet.agent.host.cache_files import MIB, cache_folder, limit_bytes

MADE = {
    "trials": "finished stages of trials",
    "targets": "the dense networks' soft targets",
    "dense": "dense networks and their exports",
    "profiles": "points of profiles",
    "code": "code of tasks, of sweeps that carry it",
    "networks": "networks that were measured for other hosts",
    "bf16": "which arithmetic trains faster",
    "pace": "how fast dense networks were",
    "bundles": "files of trials that were not uploaded",
    "pictures": "pictures, scaled and decoded",
}
"""What can be made again; everything else in the cache is data."""
DATA = "data set"


@dataclass(frozen=True)
class Room:
    """A folder of the cache: how many files and bytes it has, and what it is for."""

    path: Path
    files: int
    size: int
    purpose: str


def rooms() -> list[Room]:
    """The folders of this host's cache, those that trials fill first."""
    root = cache_folder()
    found = [path for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []
    order = list(MADE)
    found.sort(key=lambda path: order.index(path.name) if path.name in MADE else len(order))
    return [_room(path) for path in found]


def _room(path: Path) -> Room:
    sizes = [each.stat().st_size for each in path.rglob("*") if each.is_file() and each.suffix != ".lock"]
    return Room(path, len(sizes), sum(sizes), MADE.get(path.name, DATA))


def show() -> int:
    """Print the cache's folders, their sizes and the limit that trials keep."""
    found = rooms()
    print(f"{cache_folder()}  (trials keep below {limit_bytes() // MIB} MiB: PRUNEFLEET_CACHE_MB)")
    for room in found:
        print(f"{room.path.name:<16} {room.size / MIB:>9.1f} MiB {room.files:>6} files  {room.purpose}")
    print(f"{'in all':<16} {sum(room.size for room in found) / MIB:>9.1f} MiB")
    return 0


def clear(data: bool) -> int:
    """Remove what can be made again, with `data` the data sets too. Trials that run meanwhile may fail and be retried.

    Lock files stay: a process may hold one.
    """
    gone = [room for room in rooms() if data or room.purpose != DATA]
    for room in gone:
        _empty(room.path)
    kept = "" if data else "; data sets stay (--data removes them too)"
    print(f"Removed {sum(room.size for room in gone) / MIB:.1f} MiB from {cache_folder()}{kept}")
    return 0


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".lock":
            path.unlink(missing_ok=True)
