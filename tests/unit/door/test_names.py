"""The public door: which names there are, what loading them costs, and who may use it."""

import ast
import configparser
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunefleet

from support.paths import DOCS, ROOT

DOOR = ROOT / "door" / "__init__.py"
ROOMS = ("agent", "infra", "objective")
OPTIONAL = ("jinja2", "openvino", "optuna", "safetensors", "scipy", "sqlalchemy", "starlette", "threadpoolctl", "torch")
NOT_LOADED = (*OPTIONAL, "numpy", "wandb", "yaml", *(f"prunefleet.{room}" for room in ROOMS))
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def python(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_docs_list_exactly_the_public_names() -> None:
    """The tables of docs/python.md, `__all__` and `dir()` have the same names, each once."""
    rows = re.findall(r"^\| (`.*?`) \|", (DOCS / "python.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(names) == sorted(prunefleet.__all__) == dir(prunefleet)


def test_a_type_checker_sees_the_same_names_in_the_same_modules() -> None:
    """What is imported for type checkers is what is loaded at run time, from the same module."""
    imported = {
        alias.name: node.module
        for node in ast.walk(ast.parse(DOOR.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prunefleet.")
        for alias in node.names
    }
    assert imported == {name: f"prunefleet.{module}" for name, (module, _) in prunefleet._HOME.items()}
    assert {*imported, "__version__"} == set(prunefleet.__all__)


@pytest.mark.parametrize("name", prunefleet.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    """Each name loads, and what it stands for has a docstring or is a type or text."""
    found = getattr(prunefleet, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert found.__name__ == name and inspect.getdoc(found)
    assert vars(prunefleet)[name] is found


def test_importing_the_package_loads_nothing_else() -> None:
    """`import prunefleet`, its names and its version load neither a room nor a package that was installed for one."""
    code = "import json, sys, prunefleet; dir(prunefleet), prunefleet.__version__; print(json.dumps(list(sys.modules)))"
    assert set(json.loads(python(code))) & set(NOT_LOADED) == set()


def test_one_name_loads_its_own_module_alone() -> None:
    """The lock's `batch` needs neither torch nor numpy, and the search needs no torch."""
    for name, absent in (("batch", {"torch", "numpy"}), ("BadInput", {"torch", "numpy"}), ("AskTell", {"torch"})):
        code = f"import json, sys; from prunefleet import {name}; print(json.dumps(list(sys.modules)))"
        assert set(json.loads(python(code))) & absent == set()


def test_a_name_whose_packages_are_missing_says_how_to_install_them() -> None:
    """Without optional packages a name either works, or raises ImportError with the line for its extra."""
    code = f"""{BLOCKER}
import json, prunefleet
told = {{}}
for name in prunefleet.__all__:
    try:
        getattr(prunefleet, name)
    except ImportError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
    told = json.loads(python(code))
    lines = {name: line.rpartition(": ")[2] for name, line in told.items()}
    extras = {name: extra for name, (_, extra) in prunefleet._HOME.items() if extra}
    assert lines == {name: f"pip install 'prunefleet[{extra}]'" for name, extra in extras.items()}
    assert told["prune"] == "prunefleet.prune needs torch: pip install 'prunefleet[trial]'"
    assert (extras["AskTell"], extras["study"], extras["read_samples"]) == ("hub", "hub,engines", "measure")


def test_the_extras_of_those_lines_exist() -> None:
    """Every extra that an ImportError names is one of setup.cfg's."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = {extra for _, extras in prunefleet._HOME.values() for extra in extras.split(",") if extra}
    assert named <= set(setup["options.extras_require"])


@pytest.mark.parametrize(("wrong", "hint"), [("prun", "; did you mean 'prune'?"), ("xyzzy", ""), ("__wrapped__", "")])
def test_an_unknown_name_is_an_attribute_error(wrong: str, hint: str) -> None:
    """A misspelt name is answered with the one that is like it, where there is one."""
    with pytest.raises(AttributeError) as caught:
        getattr(prunefleet, wrong)
    assert str(caught.value) == f"module 'prunefleet' has no attribute '{wrong}'{hint}"


def test_a_module_of_our_own_that_is_missing_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the installation itself is not answered with an extra to install."""
    monkeypatch.setitem(prunefleet._HOME, "prune", ("agent.nowhere", "trial"))
    monkeypatch.delitem(vars(prunefleet), "prune", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'prunefleet\.agent\.nowhere'"):
        _ = prunefleet.prune


def test_the_version_is_that_of_the_installation() -> None:
    """`prunefleet.__version__` is setup.cfg's."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert prunefleet.__version__ == setup["metadata"]["version"]


def test_the_package_is_typed() -> None:
    """The marker for type checkers is in the package, and the installation takes it along."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert (ROOT / "door" / "py.typed").is_file()
    assert setup["options.package_data"]["prunefleet"] == "py.typed"


def from_the_door(source: str) -> Iterator[str]:
    """The names that a source imports from `prunefleet` itself, and the package where it is imported as a whole."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name == "prunefleet")
        elif isinstance(node, ast.ImportFrom) and node.module == "prunefleet":
            yield from (alias.name for alias in node.names if alias.name not in ROOMS)


@pytest.mark.parametrize(
    "line", ["import prunefleet", "import prunefleet as p", "def f():\n from prunefleet import prune"]
)
def test_an_import_of_the_door_is_seen(line: str) -> None:
    """However it is written, and wherever in the source."""
    assert list(from_the_door(line))


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_the_door(room: str) -> None:
    """Rooms import each other by their own names: the door stands above all of them."""
    paths = list((ROOT / room).rglob("*.py"))
    assert paths
    assert {str(path): found for path in paths if (found := list(from_the_door(path.read_text())))} == {}


READ_BY_USERS = [ROOT / "README.md", *DOCS.rglob("*.md"), *DOCS.glob("examples/*.*"), *ROOT.glob("notebooks/*.ipynb")]


@pytest.mark.parametrize("path", READ_BY_USERS, ids=lambda path: path.name)
def test_what_users_copy_imports_public_names_alone(path: Path) -> None:
    """README, docs, examples and notebooks import from `prunefleet`, never from below it, and only what is there."""
    text = path.read_text()
    assert re.findall(r"(?:from|import) prunefleet\.\w+", text) == []
    for names in re.findall(r"from prunefleet import ([\w, ]+)", text):
        assert {name.strip() for name in names.split(",")} <= set(prunefleet.__all__)
