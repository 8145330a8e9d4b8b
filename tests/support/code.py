"""A user's task in a folder: two modules and a package, written as the user would, and a place for artifacts."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT

TASK = '''
"""A task of the user's own."""

import numpy as np
from my_parts import widths
from tiny_task import TinyTask

CODE_FILES = ("my_labels.txt",)
ANSWER = ANSWER_HERE


class Mine(TinyTask):
    name = "mine"

    def network(self):
        from my_later import later  # imported when it is wanted

        assert later() and widths.WIDTH and np
        return super().network()

    def fit(self, network, budget, report):
        print("answer", ANSWER)
        super().fit(network, budget, report)
'''
FILES = {
    "my_task.py": TASK,
    "my_later.py": "def later():\n    return True\n",
    "my_parts/__init__.py": "",
    "my_parts/widths.py": "from . import depths\n\nWIDTH = 64\n",
    "my_parts/depths.py": "import my_parts.widths\n",
    "my_labels.txt": "cat\r\ndog\r\n",
    "unused.py": "raise SystemExit\n",
    "my_parts/unused.py": "raise SystemExit\n",
}
CARRIED = sorted(set(FILES) - {"unused.py", "my_parts/unused.py"})
NAME = "my_task:Mine"


def write_task(folder: Path, answer: int = 0) -> Path:
    """The user's folder; tasks with another `answer` are other code under the same names."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("ANSWER_HERE", str(answer)).encode())
    return folder


class Shelf:
    """Artifacts of a project, in a folder; counts what is fetched and published."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []
        self.published: list[str] = []

    def fetch(self, name: str, folder: Path) -> bool:
        kept = self.root / name.partition(":")[0]
        if not kept.is_dir():
            return False
        self.fetched.append(name)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return True

    def named(self, kind: str, sha256: str) -> None:
        return None

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        self.published.append(kind)
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        return "v0"


@contextmanager
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test change the path and load modules of the user's; they are forgotten after it."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(ROOT))])
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith("my_")]:
            del sys.modules[name]
