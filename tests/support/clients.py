"""The wandb clients that the wire tests drive, each in a Python of its own."""

import sys
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT


@dataclass(frozen=True)
class Client:
    """A Python that has a wandb client."""

    name: str
    python: Path

    @property
    def folder(self) -> str:
        """The name of its environment's folder."""
        return self.python.parents[1].name


CURRENT = Client("current", Path(sys.executable))
OLDER = Client("older", ROOT / ".venv-wandb-older" / "bin" / "python")
