"""What an earlier life of this host's agents left behind: their server is told, in place of waiting for its silence."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunefleet.infra.fleet import hub_calls

ACTION = "lost"
AGAIN_S = 5.0
MOST_S = 600.0  # by then the server has waited long enough by itself


def left_behind(folder: Path) -> list[str]:
    """The last run of each agent that was kept in `folder` (its WANDB_DIR is in there), if no process is at it."""
    last = [max(found, key=_begun).name for each in folder.glob("agent-*/wandb") if (found := _runs(each))]
    names = [name.rpartition("-")[2] for name in last]
    return [name for name in names if not _is_alive(name)]


def tell(environment: Mapping[str, str], sweep: str, names: Sequence[str]) -> threading.Thread | None:
    """Say so to the hub, beside what else is done and until it has heard; a server that is no hub is left alone."""
    url, key = environment.get("WANDB_BASE_URL"), environment.get("WANDB_API_KEY")
    if not names or not url or not key:
        return None
    thread = threading.Thread(target=_tell, args=(url.rstrip("/"), key, sweep, list(names)), daemon=True)
    thread.start()
    return thread


def _tell(url: str, key: str, sweep: str, names: list[str]) -> None:
    project, _, name = sweep.rpartition("/")
    rest = threading.Event()
    for _ in range(int(MOST_S / AGAIN_S)):
        body = {"action": ACTION, "agent": socket.gethostname(), "runs": names}
        with contextlib.suppress(hub_calls.Away):
            try:
                names = list(hub_calls.post(url, f"/{project}/sweeps/{name}/agents.json", body, key).get("heard", []))
            except hub_calls.Refused:
                return
            if not names:
                return
        rest.wait(AGAIN_S)


def _runs(folder: Path) -> list[Path]:
    return [each for each in folder.glob("run-*-*") if each.is_dir()]


def _begun(folder: Path) -> str:
    """The client names them run-<day>_<time>-<id>."""
    return folder.name.split("-")[1]


def _is_alive(name: str) -> bool:
    told = f"\0WANDB_RUN_ID={name}\0".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if told in b"\0" + environ.read_bytes():
                return True
    return False
