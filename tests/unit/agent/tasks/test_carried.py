"""Which code a host runs: its own where it is the sweep's, what is kept or fetched otherwise, none where it may not."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.agent.tasks.code import carried
from prunefleet.agent.tasks.code.carried import folder_of, keep, provide, publish, standing
from prunefleet.agent.tasks.code.source import Code, code_of
from prunefleet.agent.tasks.task import task_hash
from prunefleet.agent.trial.context import loaded
from prunefleet.agent.trial.request import from_config
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

from support.code import CARRIED, NAME, Shelf, apart, write_task
from support.device import path
from support.paths import TESTS

HASH = """
from prunefleet.agent.trial.context import loaded
from prunefleet.agent.trial.request import from_config
from prunefleet.agent.tasks.task import task_hash
print(task_hash(loaded(from_config({"task": "%s", "code": "%s"}), None)))
"""


class Place:
    """A project with two codes of one task, and an empty working directory with an empty cache."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder
        self.shelf = Shelf(folder / "shelf")
        self.codes = [self.code(answer) for answer in (1, 2)]
        self.names = [publish(self.shelf, code) for code in self.codes]
        (folder / "empty").mkdir()
        self.at("empty")
        self.monkeypatch.setenv("PRUNEFLEET_CACHE", str(folder / "cache"))

    def code(self, answer: int) -> Code:
        self.monkeypatch.chdir(write_task(self.folder / f"mine{answer}", answer))
        found = code_of("my_task")
        assert found is not None
        return found

    def at(self, name: str) -> None:
        self.monkeypatch.chdir(self.folder / name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.delenv(carried.REFUSE, raising=False)
    with apart(monkeypatch):
        yield Place(tmp_path, monkeypatch)


def answer(folder: Path | None, reference: str) -> int:
    """What the code of a task says, loaded as a trial loads it, whose process would end then."""
    before = list(sys.path)
    task = loaded(from_config({"task": NAME, "code": reference}), folder)
    task.network()
    found: int = sys.modules["my_task"].ANSWER
    sys.path[:] = before
    return found


def test_it_is_fetched_once_and_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A host without the code gets it from the project; the next trial has it, and so has one without the project."""
    name = place.names[0]
    assert "would be fetched" in standing(NAME, name).told
    first = provide(NAME, name, place.shelf)
    assert first is not None and answer(first, name) == 1
    assert provide(NAME, name, place.shelf) == first and provide(NAME, name, None) == first
    assert place.shelf.fetched == [place.names[0].partition(":")[0] + ":v0"]
    assert (
        sorted(path.relative_to(first).as_posix() for path in first.rglob("*.[pt][yx]*") if path.suffix != ".pyc")
        == CARRIED
    )
    assert folder_of(standing(NAME, name)) == first and capsys.readouterr().out == ""


def test_a_hosts_own_copy_is_run_where_it_is_the_same(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is fetched, and nothing said."""
    place.at("mine1")
    for reference in (place.names[0], place.codes[0].sha256):
        assert standing(NAME, reference).own and provide(NAME, reference, place.shelf) is None
    assert place.shelf.fetched == [] and capsys.readouterr().out == "" and answer(None, place.names[0]) == 1


def test_the_sweeps_code_is_run_where_a_host_has_another(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names both; what lies in the working directory is not found by any import."""
    place.at("mine2")
    (place.folder / "mine2" / "my_dynamic.py").write_text("")
    place.monkeypatch.syspath_prepend(str(place.folder / "mine2"))
    folder = provide(NAME, place.names[0], place.shelf)
    said = capsys.readouterr().out
    mine, sweeps = (code.sha256[:12] for code in reversed(place.codes))
    assert said == f"code of {NAME}: the sweep's, {sweeps}, is run, not {mine} of here\n"
    assert answer(folder, place.names[0]) == 1
    loaded(from_config({"task": NAME, "code": place.names[0]}), folder)
    with pytest.raises(ModuleNotFoundError):
        __import__("my_dynamic")


def test_two_codes_of_one_name_do_not_mix(place: Place) -> None:
    """Two sweeps whose tasks and modules are called alike each run their own, one after the other in one process."""
    for turn in (0, 1, 0):
        folder = provide(NAME, place.names[turn], place.shelf)
        assert answer(folder, place.names[turn]) == turn + 1
    hashes = {task_hash(loaded(from_config({"task": NAME, "code": name}), None)) for name in place.names}
    assert len(hashes) == 2


def test_the_hash_of_the_task_is_the_same_on_every_host(place: Place) -> None:
    """Fetched or its own; other code beside the same class is another task."""
    name = place.names[0]
    fetched = task_hash(loaded(from_config({"task": NAME, "code": name}), provide(NAME, name, place.shelf)))
    script = [sys.executable, "-c", HASH % (NAME, place.codes[0].sha256)]
    env = {**os.environ, "PYTHONPATH": path(TESTS.parent, TESTS)}
    done = subprocess.run(script, cwd=place.folder / "mine1", env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == fetched, done.stderr


def test_a_host_that_refuses_runs_no_code_of_a_sweep(place: Place) -> None:
    """Neither fetched nor from its cache; the line has the task, both hashes and the way out. Its own copy does."""
    place.monkeypatch.setenv(carried.REFUSE, "1")
    keep(place.codes[0])
    short = place.codes[0].sha256[:12]
    for folder, mine in (("empty", "none"), ("mine2", place.codes[1].sha256[:12])):
        place.at(folder)
        with pytest.raises(BadInput) as told:
            provide(NAME, place.names[0], place.shelf)
        line = str(told.value)
        assert line.startswith(f"code of {NAME}: got '{mine}'; bring the sweep's, {short}, to this host")
        assert "PRUNEFLEET_NO_REMOTE_CODE is set" in line and "\n" not in line
    assert place.shelf.fetched == [] and "my_task" not in sys.modules
    place.at("mine1")
    assert provide(NAME, place.names[0], place.shelf) is None
    place.monkeypatch.setenv(carried.REFUSE, "0")
    place.at("empty")
    assert provide(NAME, place.names[0], place.shelf) is not None


def test_code_that_does_not_travel_is_kept_where_it_was_planned(place: Place) -> None:
    """A sweep that names a hash alone is run from a host's own copy, or where it was planned; others are told why."""
    sha256 = place.codes[0].sha256
    with pytest.raises(BadInput, match="without `upload: all` it carries none"):
        provide(NAME, sha256, place.shelf)
    place.at("mine2")
    keep(place.codes[0])
    assert answer(provide(NAME, sha256, None), sha256) == 1 and place.shelf.fetched == []


def test_agents_that_start_together_fetch_it_once(place: Place) -> None:
    """The others wait, and find it whole."""
    # Agents are processes: Python's import system, asked for the host's own code, is not made for threads' sake.
    place.monkeypatch.setattr(carried, "code_of", lambda module: None)
    found: list[Path | None] = []
    agents = [
        threading.Thread(target=lambda: found.append(provide(NAME, place.names[0], place.shelf))) for _ in range(6)
    ]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join(60)
    assert len(place.shelf.fetched) == 1 and len(found) == 6 and len(set(found)) == 1


def test_a_copy_that_is_damaged_is_made_again(place: Place) -> None:
    """A file that changed comes from the archive, an archive that changed from the project; files beside stay."""
    name = place.names[0]
    folder = provide(NAME, name, place.shelf)
    assert folder is not None
    (folder / "made_by_the_task.txt").write_text("")
    assert provide(NAME, name, None) == folder and (folder / "made_by_the_task.txt").exists()
    (folder / "my_later.py").write_text("def later(): return False")
    assert answer(provide(NAME, name, None), name) == 1
    archive = folder.with_name(f"{folder.name}.zip")
    archive.write_bytes(archive.read_bytes()[:-5])
    with pytest.raises(BadInput, match="no such artifact"):
        provide(NAME, name, None)
    assert provide(NAME, name, place.shelf) == folder and len(place.shelf.fetched) == 2


def test_what_is_not_the_named_code_is_refused(place: Place) -> None:
    """An artifact of other content, without an archive or damaged; a constant that names no hash."""
    kept = place.shelf.root / place.names[0].partition(":")[0] / "code.zip"
    kept.write_bytes(place.codes[1].packed())
    with pytest.raises(BadInput, match=f"what the project has under this name is {place.codes[1].sha256[:12]}"):
        provide(NAME, place.names[0], place.shelf)
    kept.write_bytes(b"no archive")
    with pytest.raises(BadInput, match="a damaged archive"):
        provide(NAME, place.names[0], place.shelf)
    kept.unlink()
    with pytest.raises(BadInput, match=r"has no code\.zip"):
        provide(NAME, place.names[0], place.shelf)
    for reference in ("code-abc:v0", "newest", f"code-{'a' * 64}"):
        with pytest.raises(BadInput, match=f"code: got '{reference}'; leave it to `prunefleet plan`"):
            from_config({"task": NAME, "code": reference})
    cache = place.folder / "cache" / "code"
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_it_is_sent_once(place: Place) -> None:
    """Code that the project has is not sent again; what only has its name is."""
    assert place.shelf.published == ["code", "code"]
    assert publish(place.shelf, place.codes[0]) == place.names[0] == f"code-{place.codes[0].sha256}:v0"
    assert place.shelf.published == ["code", "code"]
    (place.shelf.root / place.names[0].partition(":")[0] / "code.zip").write_bytes(b"")
    publish(place.shelf, place.codes[0])
    assert len(place.shelf.published) == 3


def test_a_host_that_lacks_what_the_code_imports_leaves_the_run_to_others(place: Place) -> None:
    """The code was loaded where it was planned: what is missing is this host's, and the line names it."""
    code = Code({"my_task.py": b"import my_missing_package\n"})
    name = publish(place.shelf, code)
    with pytest.raises(TrialFailed) as told:
        loaded(from_config({"task": NAME, "code": name}), provide(NAME, name, place.shelf))
    assert told.value.failure.kind is FailureKind.DATA and "no module 'my_missing_package'" in str(told.value)
    with pytest.raises(BadInput):
        loaded(from_config({"task": NAME, "code": name}), provide(NAME, name, place.shelf), at_fault=True)
