"""The code of a user's task: which files it is, their hash, and archives that are damaged or mean harm."""

import io
import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.agent.tasks.code.source import LIMIT, Code, code_of
from prunefleet.objective.errors import BadInput

from support.code import CARRIED, FILES, apart, write_task


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, which the test works in."""
    folder = write_task(tmp_path / "mine")
    monkeypatch.chdir(folder)
    with apart(monkeypatch):
        yield folder


def collected(module: str = "my_task") -> Code:
    found = code_of(module)
    assert found is not None
    return found


def test_it_is_what_the_task_imports_from_beside_it(here: Path) -> None:
    """Modules and packages in the folder, wherever imported, and files that they name; no other, and nothing is run."""
    assert sorted(collected().files) == CARRIED
    assert sorted(collected("my_parts.widths").files) == [
        "my_parts/__init__.py",
        "my_parts/depths.py",
        "my_parts/widths.py",
    ]


@pytest.mark.parametrize(
    "module", ["prunefleet.agent.tasks.ready.fashion_mnist", "numpy", "json", "no_such_module", "", "my_parts.none"]
)
def test_what_is_not_the_users_is_no_code(here: Path, module: str) -> None:
    """This package's own modules, installed ones, Python's and those that are not there."""
    assert code_of(module) is None


def test_names_of_pythons_own_stay_pythons(here: Path) -> None:
    """A file beside the task that is called as a module of Python's or this package's is not what Python would load."""
    (here / "json.py").write_text("")
    (here / "prunefleet").mkdir()
    (here / "prunefleet" / "__init__.py").write_text("")
    (here / "my_later.py").write_text("import json, prunefleet\n")
    assert sorted(collected().files) == CARRIED


def test_a_file_named_like_an_installed_package_stays(here: Path) -> None:
    """The working directory comes last: the task imports the installed torch, so a `torch.py` beside it does not go."""
    (here / "torch.py").write_text("raise SystemExit\n")
    (here / "my_later.py").write_text("import torch\n")
    assert sorted(collected().files) == CARRIED


def test_a_namespace_in_two_folders_is_the_task_s_own_part(here: Path, tmp_path: Path) -> None:
    """Of a package without `__init__.py` that lies in two folders, what is beside the task's module goes along."""
    for place, name in ((tmp_path / "other", "x"), (here, "mine")):
        (place / "my_space").mkdir(parents=True)
        (place / "my_space" / f"{name}.py").write_text("")
    sys.path.append(str(tmp_path / "other"))
    assert sorted(collected("my_space.mine").files) == ["my_space/mine.py"]


def test_the_user_s_own_agent_folder_goes_along(here: Path) -> None:
    """A package of the user's is theirs whatever it is called: only `prunefleet` is ours."""
    (here / "agent").mkdir()
    (here / "agent" / "__init__.py").write_text("")
    (here / "agent" / "mine.py").write_text("")
    (here / "my_later.py").write_text("import agent.mine\n")
    assert sorted(collected().files) == ["agent/__init__.py", "agent/mine.py", *CARRIED]


def test_a_file_that_does_not_parse_goes_along(here: Path) -> None:
    """Whether it matters shows when it is imported, as it does where the user works."""
    (here / "my_later.py").write_text("def\n")
    assert sorted(collected().files) == CARRIED


def test_the_hash_is_of_names_and_contents_alone(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, permissions, order, folder and the line ends of sources do not change it; content, names and data do."""
    first = collected()
    assert Code(dict(reversed(first.files.items()))).sha256 == first.sha256
    os.utime(here / "my_task.py", (1, 1))
    (here / "my_later.py").chmod(stat.S_IRUSR)
    (here / "my_parts" / "widths.py").write_bytes(FILES["my_parts/widths.py"].replace("\n", "\r\n").encode())
    assert collected().sha256 == first.sha256
    monkeypatch.chdir(write_task(tmp_path / "elsewhere"))
    assert collected().sha256 == first.sha256
    monkeypatch.chdir(write_task(tmp_path / "other", answer=1))
    assert collected().sha256 != first.sha256
    monkeypatch.chdir(here)
    (here / "my_labels.txt").write_bytes(b"cat\ndog\n")
    assert collected().sha256 != first.sha256


def test_an_archive_gives_the_same_code(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed twice it has the same bytes; unpacked and collected anew it has the same hash."""
    code = collected()
    assert code.packed() == Code(dict(reversed(code.files.items()))).packed()
    again = Code.unpacked(code.packed())
    assert again == code
    again.write(tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    assert collected().sha256 == code.sha256


@pytest.mark.parametrize(
    "name",
    ["../my_task.py", "/etc/my_task.py", "a/../../b.py", "a//b.py", "./a.py", "a\\b.py", "a/__pycache__/b.pyc"],
)
def test_a_name_that_climbs_is_refused(name: str) -> None:
    """No file is written anywhere but below the code's folder, nor where Python keeps what it compiled."""
    with pytest.raises(BadInput, match="code"):
        Code.unpacked(archive(("my_task.py", b""), (name, b"")))


def archive(*files: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files:
            made.writestr(name, text)
    return content.getvalue()


def test_a_damaged_archive_is_one_line() -> None:
    """Cut off, changed, no archive at all, of too much when unpacked, or with a name twice."""
    whole = archive(("my_task.py", b"x = 1\n" * 100))
    changed = whole[:50] + bytes([whole[50] ^ 255]) + whole[51:]
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = archive(("a.py", b""), ("a.py", b""))
    for content in (whole[:-30], changed, b"", b"no archive", archive(("a.py", b"\0" * (LIMIT + 1))), twice):
        with pytest.raises(BadInput) as told:
            Code.unpacked(content)
        assert told.value.field == "code" and "plan" in told.value.remedy


@pytest.mark.parametrize("named", ['("none.txt",)', '("../secret",)', '("/etc/passwd",)', '"my_labels.txt"', "FILES"])
def test_a_file_that_cannot_go_along_is_one_line(here: Path, named: str) -> None:
    """CODE_FILES lists names of files that are there, in the module's folder or below."""
    (here.parent / "secret").write_text("")
    (here / "my_later.py").write_text(f"CODE_FILES = {named}\n")
    with pytest.raises(BadInput, match=r"CODE_FILES of my_later\.py: got"):
        code_of("my_task")


def test_sources_that_are_named_bring_what_they_import(here: Path) -> None:
    """Modules that a task imports by name at run time are found where CODE_FILES names them."""
    (here / "plugins").mkdir()
    (here / "plugins" / "one.py").write_text("import my_beside\n")
    (here / "my_beside.py").write_text("")
    (here / "my_later.py").write_text('CODE_FILES = ("plugins/*.py",)\n')
    assert {"plugins/one.py", "my_beside.py"} <= set(collected().files)


def test_too_much_is_one_line(here: Path) -> None:
    """The largest file is named: data does not travel as code."""
    (here / "my_labels.txt").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(BadInput, match=r"code of the task: got '4\.0 MiB, most in my_labels\.txt'; at most 4 MiB"):
        code_of("my_task")
