"""A host joins a real hub and leaves it again: by a token, with agents of the real client, with and without systemd."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.hub import HubProcess, basic, end_session, post
from support.paths import ROOT
from support.wait import wait_for

SWEEP = """
program: train.py
command: ["${env}", "${interpreter}", "${program}"]
method: grid
metric: {name: loss, goal: minimize}
parameters: {x: {values: [1]}}
"""
TRAIN = """
import wandb
with wandb.init(settings=wandb.Settings(console="off", x_disable_stats=True)) as run:
    run.log({"loss": run.config["x"]})
"""
# Notes what it is asked, knows which units are enabled, and runs their command as a service of the user would be run.
SYSTEMCTL = """#!/bin/sh
here={folder}
echo "$@" >> $here/asked
[ -e $here/broken ] && [ "$2" = enable ] && {{ echo "Failed to enable unit: broken" >&2; exit 1; }}
shift
case "$1" in
    restart)
        [ -e $here/pid ] && kill $(cat $here/pid)
        name=$(echo $2 | sed 's/.*@//; s/.service$//')
        cd $HOME
        setsid env -i HOME=$HOME PATH=$PATH PYTHONPATH=$PYTHONPATH WANDB_ERROR_REPORTING=false \\
            {python} -m prunefleet.infra.cli agent $name > $here/log 2>&1 &
        echo $! > $here/pid ;;
    disable)
        pid=$(cat $here/pid); kill $pid
        while grep -qs 'State:.[^ZX]' /proc/$pid/status; do sleep 0.1; done ;;
esac
exit 0
"""


class NewHost:
    """A host with a home of its own, and what it ran."""

    def __init__(self, hub: HubProcess, folder: Path) -> None:
        self.hub, self.home = hub, folder
        self.home.mkdir(parents=True)
        (self.home / "train.py").write_text(TRAIN)
        self.started: list[subprocess.Popen[str]] = []

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PRUNEFLEET_"))}
        own = {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "WANDB_ERROR_REPORTING": "false"}
        path = f"{self.home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**kept, **own, "PATH": path, "TMPDIR": str(self.home)}

    def start(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        """`prunefleet WORDS` there."""
        with (self.home / f"said-{len(self.started)}").open("w") as out:
            argv = [sys.executable, "-m", "prunefleet.infra.cli", *words]
            made = subprocess.Popen(
                argv, env={**self.env, **more}, cwd=self.home, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
        self.started.append(made)
        return made

    def run(self, *words: str, code: int = 0, **more: str) -> str:
        """What it says to its end."""
        made = self.start(*words, **more)
        assert made.wait(180) == code, self.said(made)
        return self.said(made)

    def said(self, made: "subprocess.Popen[str]") -> str:
        return (self.home / f"said-{self.started.index(made)}").read_text()

    def key_file(self, name: str) -> Path:
        return self.home / ".config" / "prunefleet" / f"{name}.env"

    def unit(self, name: str) -> Path:
        return self.home / ".config" / "systemd" / "user" / f"prunefleet-agent@{name}.service"

    def systemctl(self, answers: bool) -> Path:
        """Whether this user has a service manager; returns where what it was asked stands."""
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        text = SYSTEMCTL.format(folder=folder, python=sys.executable) if answers else "#!/bin/sh\nexit 1\n"
        (folder / "systemctl").write_text(text)
        (folder / "systemctl").chmod(0o755)
        return folder / "asked"

    def end(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"HOME={self.home}".encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        for each in self.started:
            end_session(each)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("join") / "hub") as made:
        yield made


@pytest.fixture
def host(hub: HubProcess, tmp_path: Path) -> Iterator[NewHost]:
    made = NewHost(hub, tmp_path / "home")
    yield made
    made.end()


def sweep(hub: HubProcess, text: str = SWEEP) -> str:
    """A new sweep's path."""
    (hub.folder / "join.yaml").write_text(text)
    return re.findall(r"wandb agent (\S+/\S+/\S+)", hub.wandb("sweep", "--project", "lab", "join.yaml"))[0]


def token(hub: HubProcess, path: str) -> str:
    status, made = hub.post("/join/tokens", {"sweep": path})
    assert status == 201
    return str(made["token"])


def states(hub: HubProcess, path: str) -> list[str]:
    text = """query($p: String!, $e: String!, $s: String!) { project(name: $p, entityName: $e) {
    sweep(sweepName: $s) { runs { edges { node { state } } } } } }"""
    entity, project, name = path.split("/")
    found = hub.query(text, e=entity, p=project, s=name)["project"]["sweep"]["runs"]["edges"]
    return sorted(edge["node"]["state"] for edge in found)


def keys(hub: HubProcess) -> list[Mapping[str, Any]]:
    return list(hub.admin("/admin/perform/keys.list", {})[1]["keys"])


def accepted(hub: HubProcess, key: str) -> bool:
    return post(f"{hub.url}/graphql", {"query": "{viewer{username}}"}, {"Authorization": basic(key)})[0] == 200


def test_a_host_joins_by_a_token_works_and_leaves(hub: HubProcess, host: NewHost) -> None:
    """Checked, its key kept for its user alone, its agents a service: the run finishes; leaving undoes it all."""
    asked, path = host.systemctl(True), sweep(hub)
    name, word = path.rpartition("/")[2], token(hub, path)
    before = {each["id"] for each in keys(hub)}
    said = host.run("join", hub.url, PRUNEFLEET_JOIN_TOKEN=word)
    assert "ok      memory: " in said and "ok      server: " in said and said.count("steadiness: ") == 1
    assert f"Joined {path} as {name}: {hub.url}/local/lab/sweeps/{name}" in said
    assert "sudo loginctl enable-linger" in said
    kept = host.key_file(name)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    key = re.findall(r"WANDB_API_KEY=(\w+)", kept.read_text())[0]
    (made,) = (each for each in keys(hub) if each["id"] not in before)
    assert made["host"] and accepted(hub, key)
    with httpx.Client(base_url=hub.url) as browser:
        browser.get("/login", params=hub.admin("/admin/tickets", {"username": "local"})[1])
        twin = f"/local/lab/sweeps/{name}/data.json"
        wait_for(lambda: socket.gethostname() in browser.get(twin).json()["fragments"]["agents"], 30)
    wait_for(lambda: states(hub, path) == ["finished"], 120, every=0.5)
    unit = host.unit(name).read_text()
    assert f'ExecStart="{sys.prefix}/bin/prunefleet" agent %i' in unit
    assert word not in said + unit and key not in said + unit + asked.read_text()
    calls = asked.read_text().splitlines()
    assert f"--user enable prunefleet-agent@{name}.service" in calls
    refused = host.run("join", hub.url, code=2, PRUNEFLEET_JOIN_TOKEN=word).splitlines()[-1]
    assert refused.startswith(f"prunefleet: token: got '…{word[-4:]}'; it was used before")

    said = host.run("leave")
    assert "Left. Its key is revoked." in said
    assert not kept.exists() and not host.unit(name).exists() and not accepted(hub, key)
    assert f"--user disable --now prunefleet-agent@{name}.service" in asked.read_text().splitlines()
    assert {each["id"] for each in keys(hub)} == before
    assert host.run("leave") == "There is nothing to leave: this host has joined no sweep.\n"


def test_without_systemd_agents_run_in_the_terminal(hub: HubProcess, host: NewHost) -> None:
    """It says so and goes on at once; a second process is refused; leaving from elsewhere ends it in order."""
    host.systemctl(False)
    path = sweep(hub)
    host.run("join", hub.url, path, code=2)  # neither token nor key
    running = host.start("join", hub.url, "--name", "bench", PRUNEFLEET_JOIN_TOKEN=token(hub, path))
    wait_for(lambda: states(hub, path) == ["finished"] or running.poll() is not None, 150, every=0.5)
    assert running.poll() is None, host.said(running)
    assert "no systemd here" in host.said(running) and "prunefleet agent bench" in host.said(running)
    assert "keeps its agents already" in host.run("agent", "bench", code=2)
    assert "give one of bench" in host.run("leave", "other", code=2)
    assert "Left. Its key is revoked." in host.run("leave", "bench")
    assert running.wait(60) == 0 and not host.key_file("bench").exists()
    assert not re.findall(rb"prunefleet-agent", b"".join(each.name.encode() for each in host.home.rglob("*")))


# `make test` has the same with a token, above.
@pytest.mark.slow
def test_a_key_of_one_s_own_joins_and_stays(hub: HubProcess, host: NewHost) -> None:
    """As on a server that makes no tokens: with WANDB_API_KEY and the sweep; leaving removes the file, not the key."""
    asked, path = host.systemctl(True), sweep(hub)
    said = host.run("join", hub.url, path, "--name", "mine", WANDB_API_KEY=hub.api_key)
    assert f"Joined {path} as mine" in said
    again = host.run("join", hub.url, path, "--name", "mine")  # with the key that is kept
    assert "Going on with the key in" in again
    assert "The API key you gave stays good" in host.run("leave")
    assert accepted(hub, hub.api_key) and not host.key_file("mine").exists() and asked.exists()


# Each line is a process of seconds: two of them in `make test`.
@pytest.mark.parametrize("some", [slice(1, 3), pytest.param(slice(None), marks=pytest.mark.slow)], ids=["some", "all"])
def test_what_is_wrong_stops_in_one_line_and_keeps_nothing(hub: HubProcess, host: NewHost, some: slice) -> None:
    """Words that are no token, no address or no sweep leave no key behind."""
    host.systemctl(True)
    path = sweep(hub)
    wrong: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (("join", "nowhere"), {}, "URL: got 'nowhere'; give the server's address"),
        (("join", "http://127.0.0.1:9"), {"PRUNEFLEET_JOIN_TOKEN": "join-x"}, "URL: got 'http://127.0.0.1:9'; start"),
        (("join", hub.url), {"PRUNEFLEET_JOIN_TOKEN": "join-" + "0" * 40}, "does not know it; ask for another"),
        (("join", hub.url, path), {"PRUNEFLEET_JOIN_TOKEN": "join-x"}, "SWEEP: got"),
        (("join", hub.url), {"WANDB_API_KEY": hub.api_key}, "SWEEP: got ''; give ENTITY/PROJECT/SWEEP"),
        (("agent", "me"), {}, "NAME: got 'me'; nothing was joined here"),
        (("invite", "local/lab/none"), {"WANDB_BASE_URL": hub.url, "WANDB_API_KEY": hub.api_key}, "sweep: got"),
        (("invite", path), {"WANDB_BASE_URL": hub.url, "WANDB_API_KEY": "x" * 40}, "WANDB_API_KEY: got '…xxxx'"),
    ]
    for words, more, line in wrong[some]:
        said = host.run(*words, code=2, **more)
        assert line in said.splitlines()[-1] and "Traceback" not in said, said
    assert not list(host.home.rglob("*.env"))


def test_a_service_that_does_not_start_leaves_no_unit(hub: HubProcess, host: NewHost) -> None:
    """The line has what systemctl said; the key stays for another try."""
    host.systemctl(True)
    path = sweep(hub)
    (host.home / "bin" / "broken").touch()
    said = host.run("join", hub.url, code=2, PRUNEFLEET_JOIN_TOKEN=token(hub, path))
    assert "systemctl --user: got 'prunefleet-agent@" in said and "Failed to enable unit" in said
    assert list(host.home.rglob("*.env")) and not list(host.home.rglob("*.service"))


def test_the_invited_line_is_printed(hub: HubProcess, host: NewHost) -> None:
    """`prunefleet invite` prints what the page shows, and says that loopback is this machine alone."""
    path = sweep(hub)
    line, note = host.run(
        "invite", path, "--minutes", "1", WANDB_BASE_URL=hub.url, WANDB_API_KEY=hub.api_key
    ).splitlines()
    assert "prunefleet[trial] @ " in line and line.endswith(f"prunefleet join {hub.url}")
    assert note.startswith(f"# {hub.url} is reached from this machine alone")


# `make test` has a hub that is killed under real agents in tests/acceptance/test_hub_kill.py and test_up_tiny.py.
@pytest.mark.slow
def test_agents_outlive_the_hub_s_absence_and_drain(tmp_path: Path) -> None:
    """The hub is killed and comes back: agents go on with the sweep; SIGTERM hands the trial back and ends with 0."""
    text = SWEEP.replace("[1]", "[1, 2, 3]")
    with HubProcess(tmp_path / "hub") as own:
        host = NewHost(own, tmp_path / "home")
        go = host.home / "go"
        (host.home / "train.py").write_text(
            "import pathlib, signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: (run.mark_preempting(), sys.exit(1)))\n"
            + TRAIN
            + f"    pathlib.Path({str(host.home)!r}, f'began-{{run.id}}').touch()\n"
            f"    while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\n"
        )
        try:
            path = sweep(own, text)
            env = {"WANDB_BASE_URL": own.url, "WANDB_API_KEY": own.api_key}
            running = host.start("agent", path, **env)
            wait_for(lambda: list(host.home.glob("began-*")), 60)
            own.kill9()
            own.restart()
            go.touch()
            wait_for(lambda: "finished" in states(own, path), 120, every=0.5)
            go.unlink()
            wait_for(lambda: len(list(host.home.glob("began-*"))) == 2, 120)
            running.send_signal(signal.SIGTERM)
            assert running.wait(120) == 0
            assert "Stopping: trials under way go back" in host.said(running)
            assert set(states(own, path)) == {"finished", "preempted"}
        finally:
            host.end()
