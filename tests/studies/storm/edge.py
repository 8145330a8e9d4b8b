"""What an edge host of the storm starts Python with, as `sitecustomize`: no torch, and a record of when it measures.

The record does not ask the host's lock: it is written where networks are run. A line is process, run, begin, end in
seconds of the clock that all namespaces share.
"""

import importlib.util
import os
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

BLOCKED = ("torch", "torchvision", "torch_pruning", "nncf")
WATCHED = {
    "prunefleet.agent.measure.rounds": (None, "slot"),
    "prunefleet.agent.measure.runners.base": ("OpenVINONetwork", "throughput"),
}
FILE = "measured.txt"


def _recorded(call: Any) -> Any:
    def recorded(*args: Any, **more: Any) -> Any:
        began = time.monotonic()
        try:
            return call(*args, **more)
        finally:
            line = f"{os.getpid()} {os.environ.get('WANDB_RUN_ID', '-')} {began:.4f} {time.monotonic():.4f}\n"
            with (Path.home() / FILE).open("ab", buffering=0) as file:  # one write: lines never mix
                file.write(line.encode())

    return recorded


class Finder:
    """Refuses what an edge host has not, and puts the record around what runs networks."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name not in WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        plain = spec.loader.exec_module

        def run(module: Any) -> None:
            plain(module)
            owner, call = WATCHED[name]
            where = getattr(module, owner) if owner else module
            setattr(where, call, _recorded(getattr(where, call)))

        spec.loader.exec_module = run  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, Finder())
