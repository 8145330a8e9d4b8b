"""A hub administrated while it serves: real commands, real load, and the real client on what was restored."""

import http.client
import json
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prunefleet.infra.hub.store.integrity import opened
from prunefleet.infra.hub.upkeep.damage import check

from support.fleet import Fleet, assert_kept
from support.hub import HubProcess, basic, command
from support.wait import wait_for

LOG = """
import pathlib, wandb
pathlib.Path("weights.bin").write_bytes(b"weights" * 1000)
with wandb.init(project="lab", id="r1", settings=wandb.Settings(console="off", x_disable_stats=True)) as run:
    for step in range(5):
        run.log({"loss": step})
    artifact = wandb.Artifact("model", "model")
    artifact.add_file("weights.bin")
    run.log_artifact(artifact).wait()
"""
READ = """
import json, pathlib, wandb
api = wandb.Api()
run = api.run("lab/r1")
folder = api.artifact("lab/model:latest").download("down")
print("READ " + json.dumps({
    "state": run.state,
    "losses": [row["loss"] for row in run.scan_history()],
    "weights": pathlib.Path(folder, "weights.bin").read_bytes() == b"weights" * 1000,
    "config": "_wandb" in run.file("config.yaml").download("down").read(),
}))
with wandb.init(project="lab", id="r2") as again:
    again.use_artifact("model:latest")
    again.log({"loss": 1})
"""


def viewer(hub: HubProcess, key: str) -> str | None:
    """Whose key it is, asked over the wire; None for 401."""
    body = json.dumps({"query": "{viewer{username}}"}).encode()
    with closing(http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)) as connection:
        headers = {"Authorization": basic(key), "Content-Type": "application/json"}
        connection.request("POST", "/graphql", body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    return None if answer.status == 401 else str(content["data"]["viewer"]["username"])


def test_a_backup_under_load_restores_to_a_hub_that_works(tmp_path: Path) -> None:
    """Taken while agents log: all acknowledged before it is in it, and the client finds runs, artifacts and its key."""
    with HubProcess(tmp_path / "old") as hub:
        data, copy = hub.folder / "hub", tmp_path / "copy"
        hub.python(LOG)
        fleet = Fleet(hub.url, hub.api_key, seed=5)
        fleet.start(fleet.sweep(500), 4)
        try:
            wait_for(lambda: fleet.count > 60 or fleet.faults, 60)
            before = fleet.ledger()
            code, said = command("backup", copy, "--data", data)
            during = fleet.count - before.count
        finally:
            fleet.stop()
        assert (code, f"backup: {copy}" in said, during > 0) == (0, True, True), said
        assert_kept(copy, before)
        assert not check(data).problems
        key = hub.api_key
    assert command("restore", copy, "--data", tmp_path / "new" / "hub")[0] == 0
    with HubProcess(tmp_path / "new") as new:
        new.api_key = key
        told = next(line for line in new.python(READ).splitlines() if line.startswith("READ "))
        read = json.loads(told.removeprefix("READ "))
        assert read == {"state": "finished", "losses": [0, 1, 2, 3, 4], "weights": True, "config": True}
        with opened(new.folder / "hub") as connection:
            assert dict(connection.execute("SELECT name, state FROM run WHERE name = 'r2'")) == {"r2": "finished"}


def test_commands_reach_a_hub_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the address it leaves, and no proxy: a key works at once, and is refused at once when revoked."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HubProcess(tmp_path) as hub:
        data = hub.folder / "hub"
        assert stat.S_IMODE((data / "hub.address").stat().st_mode) == 0o600
        key = command("users", "add", "ann", "--data", data)[1].strip()
        assert viewer(hub, key) == "ann"
        code, said = command("keys", "list", "ann", "--data", data)
        assert (code, "UTC" in said.splitlines()[1]) == (0, True)
        assert command("keys", "revoke", said.splitlines()[1].split()[0], "--data", data)[0] == 0
        assert viewer(hub, key) is None
        code, said = command("keys", "revoke", "0" * 8, "--data", data)
        assert (code, said.count("\n"), "keys list" in said) == (2, 1, True)
        assert hub.stop() == 0
        assert not (data / "hub.address").exists()


def test_the_address_of_a_killed_hub_is_stale(tmp_path: Path) -> None:
    """After kill -9 the address is still there, and the commands work on the folder itself."""
    with HubProcess(tmp_path) as hub:
        data = hub.folder / "hub"
        hub.kill9()
        assert (data / "hub.address").exists()
        code, said = command("users", "--data", data)
        assert (code, "local" in said) == (0, True)


def test_gc_while_agents_upload_loses_nothing(tmp_path: Path) -> None:
    """Collecting again and again under load removes no file that was acknowledged."""
    with HubProcess(tmp_path) as hub:
        data = hub.folder / "hub"
        fleet = Fleet(hub.url, hub.api_key, seed=6, posts=2)
        fleet.start(fleet.sweep(8), 4)
        try:
            while len(fleet.ledger().finished) < 8 and not fleet.faults:
                assert command("gc", "--abandoned-after", "0", "--data", data)[0] == 0
            fleet.join(60)
        finally:
            fleet.stop()
        assert_kept(data, fleet.ledger())
