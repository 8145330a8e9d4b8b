"""What a joined host keeps and runs: its key file, its unit, its places for agents, and what it asks a hub."""

import http.server
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.infra.fleet import hub_calls
from prunefleet.infra.fleet.joining import keep, keyfile, systemd
from prunefleet.infra.fleet.joining.host_join import invite
from prunefleet.infra.fleet.joining.keyfile import GIVEN, TOKEN, Membership
from prunefleet.objective.errors import BadInput


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_key_file_is_its_users_alone_and_reads_back(home: Path) -> None:
    """Mode 0600 over whatever stood there; odd values come back as they were; the key is in no representation."""
    path = home / ".config" / "prunefleet" / "board1.env"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    path.chmod(0o644)
    odd = {"PRUNEFLEET_DATA": "/data sets/a'b $HOME #1", "PYTHONPATH": "a:b"}
    joined = Membership("board1", "http://hub:1", "k" * 40, "me/lab/s1", "measure", TOKEN, odd)
    joined.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and keyfile.find("board1") == joined
    assert "k" * 9 not in repr(joined) and [each.name for each in path.parent.iterdir()] == ["board1.env"]
    told = subprocess.run(
        ["sh", "-c", f'. {path}; echo "$PRUNEFLEET_DATA"'], capture_output=True, text=True, check=True
    )
    assert told.stdout == odd["PRUNEFLEET_DATA"] + "\n"


def test_files_by_hand_are_used_and_never_left(home: Path) -> None:
    """What somebody wrote runs agents; only what `join` made counts as joined, and a hub's settings are neither."""
    folder = home / ".config" / "prunefleet"
    folder.mkdir(parents=True)
    (folder / "mine.env").write_text('# mine\nWANDB_BASE_URL=http://h\nWANDB_API_KEY="abc"\nSWEEP=a/b/c\n')
    (folder / "hub.env").write_text("PRUNEFLEET_HOST=0.0.0.0\n")
    found = keep.one("mine")
    assert (found.sweep, found.api_key, found.key_from, found.role) == ("a/b/c", "abc", GIVEN, "trial")
    assert keyfile.joined_here() == []
    with pytest.raises(BadInput, match=r"hub\.env: WANDB_BASE_URL: got ''"):
        keep.one("hub")
    with pytest.raises(BadInput, match="join a sweep first"):
        keep.one("")
    Membership("a", "http://h", "k", "e/p/s").save()
    assert keep.one("").name == "a"
    Membership("b", "http://h", "k", "e/p/t").save()
    with pytest.raises(BadInput, match="give one of a, b"):
        keep.one("")


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "x" * 65, "a/b", "-x", "a\n"])
def test_names_are_file_names(name: str) -> None:
    """A name becomes one of a file and of a unit."""
    with pytest.raises(BadInput, match="NAME"):
        keyfile.named(name)


def test_each_gpu_has_an_agent_and_a_queue_has_one(tmp_path: Path) -> None:
    """Those that the kernel shows, or that CUDA_VISIBLE_DEVICES leaves; one for the processor; one for a device."""
    assert keep.gpus({}, tmp_path) == [None]
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert keep.gpus({}, tmp_path) == ["0", "2", "10"]
    assert keep.gpus({"CUDA_VISIBLE_DEVICES": "1, GPU-abc"}, tmp_path) == ["1", "GPU-abc"]
    for none in ("", "-1"):
        assert keep.gpus({"CUDA_VISIBLE_DEVICES": none}, tmp_path) == [None]
    two = {"CUDA_VISIBLE_DEVICES": "0,1", "PATH": "/bin"}
    agents = keep._agents("e/p/s", tmp_path, two)
    assert [agent._env["CUDA_VISIBLE_DEVICES"] for agent in agents] == ["0", "1"]
    assert agents[0]._env["PATH"].split(":")[0] == str(Path(sys.prefix) / "bin")
    assert len(keep._agents("e/p/s", tmp_path, {**two, keyfile.ROLE: "measure"})) == 1


def test_one_process_keeps_the_agents_of_a_name() -> None:
    """The second is told who does; after the first has ended nobody does."""
    with keep.held("a"):
        assert keep.holder("a") == os.getpid()
        with pytest.raises(BadInput, match=f"process {os.getpid()} keeps its agents already"), keep.held("a"):
            pass
    assert keep.holder("a") is None and keep.holder("never") is None


@pytest.mark.parametrize("prefix", ["/opt/pf", "/home/a b/100%/env"])
def test_the_unit_runs_this_environments_command(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its path is called; all else is the template that `infra/deploy` has."""
    monkeypatch.setattr(sys, "prefix", prefix)
    text = systemd.content()
    assert f'ExecStart="{prefix.replace("%", "%%")}/bin/prunefleet" agent %i' in text.splitlines()
    template = Path(systemd.__file__).parents[2] / systemd.TEMPLATE
    assert len(text.splitlines()) == len(template.read_text().splitlines())


def test_the_unit_is_as_systemd_describes_it(tmp_path: Path) -> None:
    """With the command of this environment in it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian's systemd)")
    (tmp_path / systemd.unit("x")).write_text(systemd.content())
    argv = ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / systemd.unit("x"))]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://h:1/", "http://h:1"),
        ("https://h/hub/", "https://h/hub"),
        ("https://wandb.ai", "https://api.wandb.ai"),
        ("https://api.wandb.ai", "https://api.wandb.ai"),
    ],
)
def test_addresses_are_as_the_client_wants_them(given: str, wanted: str) -> None:
    """Without a slash at the end, and wandb.ai's pages stand for its API."""
    assert hub_calls.address(given) == wanted


@pytest.mark.parametrize("url", ["", "hub", "ftp://h", "http://", "http://me:key@h", "http://h/?token=x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Nor is one with a secret in it."""
    with pytest.raises(BadInput, match="URL: got"):
        hub_calls.address(url)


def test_the_key_is_where_the_client_has_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WANDB_API_KEY first, then what `wandb login` wrote for that very host."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert hub_calls.key_for("http://hub:1") is None
    (home / ".netrc").write_text("machine hub\n  login user\n  password " + "n" * 40 + "\n")
    (home / ".netrc").chmod(0o600)
    assert (hub_calls.key_for("http://hub:1"), hub_calls.key_for("http://other")) == ("n" * 40, None)
    monkeypatch.setenv("WANDB_API_KEY", "e" * 40)
    assert hub_calls.key_for("http://hub:1") == "e" * 40


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Leads every POST to another address, and remembers who came there."""

    seen: list[str] = []  # noqa: RUF012 - of the one server

    def do_POST(self) -> None:
        self.seen.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302)
        self.send_header("Location", "/stolen")
        self.end_headers()

    def do_GET(self) -> None:
        self.seen.append(f"GET {self.path}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Elsewhere.seen.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_key_is_not_led_elsewhere(elsewhere: str) -> None:
    """A redirection is a refusal; a server that takes no tokens is told from one that is away."""
    with pytest.raises(hub_calls.Refused) as refused:
        hub_calls.give_up(elsewhere, "k" * 40)
    assert refused.value.status == 302 and Elsewhere.seen == ["/leave"]
    with pytest.raises(BadInput, match="takes no join tokens"):
        hub_calls.exchange(elsewhere, "join-x")
    with pytest.raises(BadInput, match=r"this server makes no tokens: run `prunefleet join \S+ e/p/s` there"):
        hub_calls.invite(elsewhere, "k" * 40, "e/p/s", 15)
    with pytest.raises(hub_calls.Away):
        hub_calls.give_up("http://127.0.0.1:9", "k" * 40)


def test_only_a_hub_invites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hub's address one line says where it goes, and what takes a token's place on wandb.ai."""
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with pytest.raises(BadInput, match=r"WANDB_BASE_URL: got 'https://api.wandb.ai'; set it to your hub's address"):
        invite("me/lab/s1", 15)
