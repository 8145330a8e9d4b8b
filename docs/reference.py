"""Make docs/task-reference.md from the docstrings of the Task protocol: `make reference`.."""

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prunefleet.agent.tasks import task
from prunefleet.agent.tasks.optional_members import OptionalMembers

PAGE = Path(__file__).parent / "task-reference.md"
HEAD = """# The Task protocol

Made from the docstrings of `prunefleet.Task` by `make reference`. How to write a task, with examples: [tasks](task.md).
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, _text(task.Task).partition("\n\n")[0]]
    attributes = _table(("attribute", "type"), _annotated(task.Task).items())
    parts += ["## What a task has", attributes, *_members(task.Task)]
    parts += ["## What a task may have", _text(OptionalMembers), *_members(OptionalMembers)]
    parts += ["## What it is called with", "### `Budget`", _text(task.Budget), _fields(task.Budget)]
    parts += ["### `Report`", _marked(_said_of("Report"))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield f"### `{name}{_signature(member)}`"
            yield _text(member)


def _signature(method: Any) -> str:
    """Arguments and result as they are called: without `self`, types by their last name."""
    found = inspect.signature(method)
    shown = str(found.replace(parameters=list(found.parameters.values())[1:]))
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", shown).replace("Callable[[Mapping[str, float]], bool]", "Report")


def _annotated(kind: type) -> dict[str, str]:
    """The attributes of a class, with their types as its source has them."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): ast.unparse(node.annotation) for node in fields}


def _fields(kind: Any) -> str:
    kinds = _annotated(kind)
    rows = [(each.name, kinds[each.name], str(each.default)) for each in dataclasses.fields(kind)]
    return _table(("field", "type", "default"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join("`{}`".format(cell.replace("|", "\\|")) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(heads), " | ".join("---" for _ in heads), *lines))


def _said_of(name: str) -> str:
    """The text that stands below a name's assignment in the source."""
    body = ast.parse(inspect.getsource(task)).body
    said = body[next(at for at, node in enumerate(body) if ast.unparse(node).startswith(f"{name} = ")) + 1]
    assert isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    return str(said.value.value)


def _text(documented: Any) -> str:
    return _marked(inspect.getdoc(documented) or "")


def _marked(text: str) -> str:
    """Prose for Markdown, no sign of which is taken for a tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "\\<") for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"Wrote {PAGE}", file=sys.stderr)
