"""A server that is away for longer than the wandb client would wait by itself: what a trial found is delivered."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from support.device import Devices, path
from support.hub import HubProcess
from support.paths import TESTS
from support.tiny_sweep import tiny_sweep
from support.wait import wait_for

AN_HOUR = 5 + 59
"""Times that a client tries in an hour, waiting 2, 4, 8, 16, 32 and then 60 s in between."""
WAITS = ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_without_the_hub_loses_nothing(tmp_path: Path) -> None:
    """Kept agents go on trying for as many times as an hour has, then deliver: each trial is scored, in one attempt.

    An hour counts in the client's own attempts, for its waits between them are made short.
    """
    with HubProcess(tmp_path / "hub") as hub:
        (hub.folder / "sweep.yaml").write_text(tiny_sweep("[0.25, 0.5]"))
        made = hub.wandb("sweep", "--project", "lab", "sweep.yaml")
        sweep = "local/lab/" + made.split("wandb agent local/lab/")[1].split()[0]
        short = {f"WANDB__{name}_RETRY_WAIT_{end}_SECONDS": "1" for name in WAITS for end in ("MIN", "MAX")}
        own = {"PYTHONPATH": path(TESTS.parent, TESTS), "OMP_NUM_THREADS": "1", "TINY_SECONDS": "3"}
        own["PRUNEFLEET_CACHE"] = str(hub.folder / "pruned")
        hub.popen(sys.executable, str(TESTS / "studies" / "storm" / "keep.py"), str(hub.folder), sweep, **short, **own)
        runs = Devices(hub).runs
        wait_for(lambda: any("kept" in run["config"] for run in runs(sweep)), 120)
        hub.stop()
        with silent(hub.url) as asked:
            wait_for(lambda: min(asked["/graphql"], asked["/file_stream"]) > AN_HOUR, 300, every=1)
        hub.restart()
        wait_for(lambda: [run["state"] for run in runs(sweep)] == ["finished", "finished"], 120)
        assert [run["summary"]["outcome"] for run in runs(sweep)] == ["scored", "scored"]
        log = (hub.folder / "agent-1.log").read_text()
        assert log.count("Agent starting run with config") == 2, log


PUBLISHES = """
import sys, time
from pathlib import Path
from prunefleet.agent.tracking import retry, tracked_run as report
from prunefleet.agent.host.stop import StopSignal
folder, is_away = Path(sys.argv[1]), retry.is_away
def looked():
    (folder / "given up").touch()
    return is_away()
retry.is_away = looked
session = report.start(StopSignal(), project="lab", name="one")
(folder / "open").touch()
while not (folder / "away").exists():
    time.sleep(0.1)
(folder / "file").write_text("x")
print("PUBLISHED", session.publish("thing", "kind", [folder / "file"], {}))
session.finish(0)
"""


@pytest.mark.timeout(300)
def test_an_artifact_outlasts_a_hub_that_stands_still(tmp_path: Path) -> None:
    """The client gives up asking within seconds where a run's first artifact is logged; it is logged all the same."""
    with HubProcess(tmp_path / "hub") as hub:
        child = hub.popen(sys.executable, "-c", PUBLISHES, str(tmp_path), PYTHONPATH=path(TESTS.parent))
        wait_for((tmp_path / "open").exists, 60)
        os.kill(hub.pid, signal.SIGSTOP)
        try:
            (tmp_path / "away").touch()
            wait_for((tmp_path / "given up").exists, 60)
        finally:
            os.kill(hub.pid, signal.SIGCONT)
        said, _ = child.communicate(timeout=120)
        assert (child.returncode, "PUBLISHED v0" in said) == (0, True), said


@contextmanager
def silent(url: str) -> Iterator[Counter[str]]:
    """A server in the hub's place that is unavailable to everybody; yields how often it was asked, by end of path."""
    asked: Counter[str] = Counter()

    class Unavailable(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked["/" + self.path.rsplit("/", 1)[1]] += 1
            self.send_error(503)

        do_PUT = do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests read the agents' logs, not this one's."""

    server = ThreadingHTTPServer(("127.0.0.1", urlsplit(url).port or 0), Unavailable)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


WAITING = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "begun").open("a").write("x")
while not (folder / "end").exists():
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_agent_whose_run_ends_while_the_hub_is_away_goes_on(tmp_path: Path) -> None:
    """The client's agent fails then, and hangs for ten minutes at times: another takes its place within a minute."""
    with HubProcess(tmp_path / "hub") as hub:
        (tmp_path / "waits.py").write_text(WAITING)
        command = [sys.executable, str(tmp_path / "waits.py"), str(tmp_path)]
        made = {"command": command, "method": "grid", "parameters": {"number": {"values": [1, 2, 3]}}}
        (hub.folder / "sweep.yaml").write_text(yaml.safe_dump({"program": "waits.py", **made}))
        said = hub.wandb("sweep", "--project", "lab", "sweep.yaml")
        sweep = "local/lab/" + said.split("wandb agent local/lab/")[1].split()[0]
        hub.popen(sys.executable, str(TESTS / "studies" / "storm" / "keep.py"), str(hub.folder), sweep)
        begun, log = tmp_path / "begun", hub.folder / "agent-1.log"
        wait_for(begun.exists, 60)
        wait_for(lambda: "Running runs: ['" in log.read_text(), 60)
        hub.kill9()
        (tmp_path / "end").touch()
        wait_for(lambda: "verify credentials" in log.read_text(), 120)
        hub.restart()
        wait_for(lambda: len(begun.read_text()) == 3, 60)
