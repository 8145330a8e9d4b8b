"""The hub's own wheel: whole, described as the installation is, and installed by pip from the hub's address."""

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import httpx
import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.users import join_line, wheel

from support.hub import Clock, local_hub, make_sweep, served
from support.paths import ROOT

# What a package of ours holds beside Python files.
DATA = (
    "infra/hub/store/migrations/0001_runs.sql",
    "infra/wire/graphql/schema.graphql",
    "infra/dashboard/templates/base.html",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("wheel") / "hub", Clock()) as made:
        yield made


@pytest.fixture(scope="module")
def url(hub: Hub) -> Iterator[str]:
    with served(hub) as address:
        yield address


def run(*argv: str | Path, code: int = 0) -> str:
    """Output of a command that sees nothing of this tree."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_its_record_holds_every_file_with_its_hash() -> None:
    """The record names all files but itself, with SHA-256 and size; code and data are those of this tree."""
    made = wheel.wheel()
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = {name: (digest, size) for name, digest, size in csv.reader(archive.read(record).decode().splitlines())}
        assert set(rows) == set(names) and len(names) == len(set(names)) and rows.pop(record) == ("", "")
        for name, (digest, size) in rows.items():
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(content)))
        rooms = [path for room in ("agent", "infra", "objective") for path in (ROOT / room).rglob("*.py")]
        ours = {f"prunefleet/{path.relative_to(ROOT).as_posix()}" for path in rooms}
        door = {f"prunefleet/{path.name}" for path in (ROOT / "door").glob("*.py")}
        assert ours | door | {f"prunefleet/{name}" for name in DATA} <= set(names)
        assert {name.split("/")[0] for name in names} == {"prunefleet", record.split("/")[0]}
        assert all(archive.read(f"prunefleet/{name}") == (ROOT / name).read_bytes() for name in (*DATA, "infra/cli.py"))
        assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", "direct_url.json"))]
        described = Parser().parsestr(archive.read(record.replace("RECORD", "METADATA")).decode())
        assert described["Name"] == "prunefleet" and {"trial", "measure"} <= set(described.get_all("Provides-Extra"))
        assert b"prunefleet = prunefleet.infra.cli:main" in archive.read(record.replace("RECORD", "entry_points.txt"))


def test_pip_installs_it_from_the_hub(url: str, tmp_path: Path, hub: Hub) -> None:
    """By the very requirement of the line: the command runs from it, its own wheel is the same; a wrong hash fails."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-cache-dir")
    asked = join_line.requirement(url, hub.host_keys.invite(make_sweep(hub)).extra)
    name, _, digest = asked.partition("#sha256=")
    assert "HASH" in run(*pip, f"{name}#sha256={'0' * 64}", code=1).upper()
    run(*pip, asked)
    assert "join" in run(tmp_path / "env" / "bin" / "prunefleet", "--help")
    code = "from prunefleet.infra.hub.users import wheel; print(wheel.__file__, wheel.wheel().sha256)"
    where, again = run(python, "-c", code).split()
    assert Path(where).is_relative_to(tmp_path) and again == digest


def test_what_a_build_left_in_a_clone_does_not_describe_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is started in a folder with `prunefleet.egg-info` still gives the installation's whole wheel."""
    left = tmp_path / "prunefleet.egg-info"
    left.mkdir()
    (left / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: prunefleet\nVersion: 0.0.1\n")
    (left / "SOURCES.txt").write_text("setup.cfg\nprunefleet.egg-info/PKG-INFO\n")
    usual = wheel.wheel().sha256
    monkeypatch.syspath_prepend(tmp_path)
    wheel.wheel.cache_clear()
    try:
        assert wheel.wheel().sha256 == usual
    finally:
        wheel.wheel.cache_clear()


def test_no_other_file_is_served_there(url: str) -> None:
    """The one name is answered, with the bytes of that hash; every other is not there, in one line."""
    made = wheel.wheel()
    answer = httpx.get(f"{url}/wheel/{made.name}")
    assert hashlib.sha256(answer.content).hexdigest() == made.sha256
    for name in ("prunefleet-9-py3-none-any.whl", "..%2fhub.db.whl", "secret.whl"):
        refused = httpx.get(f"{url}/wheel/{name}")
        assert refused.status_code == 404 and made.name not in refused.headers.get("location", "")


def test_plain_files_have_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prunefleet is not installed as a package the line names the index's, and the address says why."""
    monkeypatch.setattr(wheel, "NAME", "not-installed-anywhere")
    wheel.wheel.cache_clear()
    try:
        with pytest.raises(Missing, match="plain files"):
            wheel.wheel()
        assert join_line.requirement("http://hub", "trial") == "prunefleet[trial]"
    finally:
        wheel.wheel.cache_clear()
