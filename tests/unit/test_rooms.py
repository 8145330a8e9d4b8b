"""The house: small rooms, one meaning for a class's name, and docs/design.md true about where a change goes."""

import ast
import configparser
import re
from collections import defaultdict
from pathlib import Path

import pytest

from support.paths import DOCS, ROOT

ROOMS = ("door", "agent", "objective", "infra")
MOST = 15
UNCOUNTED = ("__init__.py", "__main__.py")
# Why a file's name may stand in several rooms: docs/design.md, "Rooms".
COMMANDS = [*(ROOT / "agent" / "commands").glob("*.py"), *(ROOT / "infra" / "commands").rglob("*.py")]
SAME_EVERYWHERE = {"errors.py", "registry.py"}
DESIGN = (DOCS / "design.md").read_text()
PLACES = re.findall(r"^\| ([^|]+) \| (`[^|]*\.(?:py|sql)`[^|]*) \|$", DESIGN, re.MULTILINE)


def files() -> list[Path]:
    """The product's Python files."""
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_a_folder_holds_at_most_fifteen_files() -> None:
    """A room is read as a list of names; what does not fit wants a room of its own."""
    held: dict[Path, int] = defaultdict(int)
    for path in files():
        held[path.parent] += path.name not in UNCOUNTED
    assert {folder.relative_to(ROOT).as_posix(): count for folder, count in held.items() if count > MOST} == {}


def test_a_class_s_name_means_one_thing() -> None:
    """No two classes of the product have one name, private ones included."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_a_file_s_name_means_one_thing() -> None:
    """Names repeat only for a command's file, which bears the command's name, and for what is the same in each room."""
    allowed = SAME_EVERYWHERE | {path.name for path in COMMANDS} | set(UNCOUNTED)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files():
        found[path.name].append(path)
    assert {name: places for name, places in found.items() if len(places) > 1 and name not in allowed} == {}


def test_setup_cfg_lists_every_package() -> None:
    """`find:` does not see mapped folders, so each is listed; one that is missing would be missing in the wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT) for path in files() if path.name == "__init__.py"}
    expected = {".".join(("prunefleet", *folder.parts)) for folder in folders if folder.parts != ("door",)}
    assert set(setup["options"]["packages"].split()) == expected | {"prunefleet"}
    assert not [folder for folder in {path.parent for path in files()} if not (folder / "__init__.py").is_file()]


def test_ten_changes_have_their_place() -> None:
    """The table of docs/design.md has at least the ten changes that a newcomer is likely to make."""
    assert len(PLACES) >= 10


@pytest.mark.parametrize(("change", "places"), PLACES, ids=[change for change, _ in PLACES])
def test_a_change_s_place_exists(change: str, places: str) -> None:
    """Each file that docs/design.md names for a change is there, and defines the name that stands behind it."""
    named = re.findall(r"`([\w/@.]+\.(?:py|sql))`(?:: [^`]*`(\w+)`)?", places)
    assert named, change
    for file, name in named:
        path = ROOT / file
        assert path.is_file(), f"{change}: {file}"
        pattern = rf"^(?:class |def )?{name}\b"
        assert not name or re.search(pattern, path.read_text(), re.MULTILINE), f"{change}: {file} defines no {name}"
