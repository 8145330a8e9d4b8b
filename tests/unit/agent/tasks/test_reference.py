"""The reference of the Task protocol: made from its docstrings, and complete."""

import importlib.util
import inspect
import re
from types import ModuleType

import pytest

from prunefleet.agent.tasks.optional_members import OptionalMembers
from prunefleet.agent.tasks.task import Task

from support.paths import DOCS, ROOT

PAGE = DOCS / "task-reference.md"
OURS = {"given_options", "given_code", "wrong_size"}
"""What the package notes in a task that it has made, and what it asks of its own tasks on pictures."""


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_script_makes(maker: ModuleType) -> None:
    """A docstring that changed is in the page once `make reference` was run."""
    assert PAGE.read_text() == maker.page(), "run `make reference`"


def methods(kind: type) -> dict[str, object]:
    """The public methods of a protocol."""
    return {name: each for name, each in vars(kind).items() if inspect.isfunction(each) and not name.startswith("_")}


def test_every_member_has_a_section() -> None:
    """With its arguments, and what its docstring says."""
    text = PAGE.read_text()
    for name, method in {**methods(Task), **methods(OptionalMembers)}.items():
        first = (inspect.getdoc(method) or "").splitlines()[0].replace("<", "\\<")
        assert re.search(rf"^### `{name}\(.*\) -> .*`\n\n{re.escape(first)}$", text, re.MULTILINE), name


def test_every_optional_member_that_is_looked_for_is_documented() -> None:
    """Whatever the package asks a task for, it has to have or may have."""
    sources = [path.read_text() for path in (ROOT / "agent").rglob("*.py")]
    asked = {name for text in sources for name in re.findall(r"""(?:get|has)attr\((?:self\.)?task, "(\w+)\"""", text)}
    assert asked - OURS <= {*methods(Task), *methods(OptionalMembers), *Task.__annotations__}
    assert asked >= set(methods(OptionalMembers))
    assert all(f"`{name}(" in (Task.__doc__ or "") for name in methods(OptionalMembers))
