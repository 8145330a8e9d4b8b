"""The schema against the operations that the installed clients themselves hold."""

import ast
import re
from pathlib import Path

import graphql
import pytest
import wandb
from support_clients import OLDER

from infra.wire.graphql import build_schema
from infra.wire.listing import NOT_SERVED

REFUSED = {name for line in NOT_SERVED.values() for name in line.split()}
NAMED = re.compile(r"\s*(?:#graphql\s*)?(?:query|mutation)\s+(\w+)")
START = re.compile(rb"(?:query|mutation) ([A-Z]\w+) ?(?:\([^)]*\) )?\{")
FRAGMENT = re.compile(rb"\s*fragment \w+ on \w+ \{")


def closing(text: bytes, start: int) -> int:
    """The place after the brace that closes the one before `start`."""
    depth, at = 1, start
    while depth:
        depth += {b"{": 1, b"}": -1}.get(text[at : at + 1], 0)
        at += 1
    return at


def core_operations(folder: Path) -> dict[str, str]:
    """The operations inside a client's wandb-core binary, with their fragments."""
    binary = (folder / "bin" / "wandb-core").read_bytes()
    found = {}
    for match in START.finditer(binary):
        end = closing(binary, match.end())
        while fragment := FRAGMENT.match(binary, end):
            end = closing(binary, fragment.end())
        found[match[1].decode()] = binary[match.start() : end].decode()
    return found


def python_operations(folder: Path) -> dict[str, str]:
    """The operations of a client's generated modules, and of those that hold them as texts."""
    found = {}
    for path in sorted([*folder.rglob("_generated/operations.py"), *folder.glob("apis/public/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if named := NAMED.match(text):
                found[named[1]] = text
    # A text that is put together at run time cannot be read here.
    return {name: text for name, text in found.items() if whole(text)}


def whole(text: str) -> bool:
    """Whether the text is an operation as it is sent, with all its fragments."""
    spread = set(re.findall(r"\.\.\. ?([A-Z]\w+)", text))
    return (
        "{}" not in text and text.count("{") == text.count("}") and spread <= set(re.findall(r"fragment (\w+)", text))
    )


def operations(folder: Path) -> dict[str, str]:
    """All operations of the wandb client in that folder."""
    return core_operations(folder) | python_operations(folder)


FOLDERS = {"current": Path(wandb.__file__).parent}
FOLDERS |= {"older": found[0]} if (found := sorted(OLDER.python.parents[1].glob("lib/*/site-packages/wandb"))) else {}
CLIENTS = {(name, text): client for client, folder in FOLDERS.items() for name, text in operations(folder).items()}
CASES = [pytest.param(text, id=f"{name}-{client}") for (name, text), client in CLIENTS.items() if name not in REFUSED]
SCHEMA = build_schema()


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_the_client_holds_operations(folder: Path) -> None:
    """The reading above finds what the client is known to send."""
    known = {"UpsertBucket", "RunResumeStatus", "HistoryPage", "GetSweep", "CreateArtifact", "ProjectViews"}
    assert known <= set(operations(folder))


@pytest.mark.older_client
def test_what_an_older_client_looks_up_has_fields() -> None:
    """Older clients ask for the fields of some types before they use them, and fail at a type without any."""
    texts = [path.read_text() for path in FOLDERS["older"].rglob("*.py") if "vendor" not in path.parts]
    asked = {name for text in texts for name in re.findall(r'__type\(name: ?"(\w+)"', text)}
    assert len(asked) > 8
    launch = {name for name in asked if re.search("RunQueue|LaunchAgent", name)}
    assert [name for name in asked - launch if not getattr(SCHEMA.type_map.get(name), "fields", None)] == []


@pytest.mark.older_client
def test_the_older_client_is_read_too() -> None:
    """Where the older client is installed, its operations are among those that are tried."""
    assert "older" in FOLDERS


@pytest.mark.parametrize("text", CASES)
def test_the_schema_takes_what_the_client_sends(text: str) -> None:
    """Each operation of either client is valid, except those the hub openly does not serve."""
    assert graphql.validate(SCHEMA, graphql.parse(text)) == []
