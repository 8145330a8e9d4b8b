"""A host on which nobody has named a sweep server, and one on which `wandb login` has."""

from pathlib import Path

import pytest


def signed_out(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No variable names a server or key, and an empty home and working directory have no file that does."""
    for name in ("WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


def signed_in(home: Path, url: str, machine: str, key: str) -> None:
    """Write the files that `wandb login --host` writes; `machine` is the server's name in the key's file."""
    folder = home / ".config" / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings").write_text(f"[default]\nbase_url = {url}\n")
    (home / ".netrc").write_text(f"machine {machine}\n  login user\n  password {key}\n")
