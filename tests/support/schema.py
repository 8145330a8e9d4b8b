"""The operations that the installed clients hold, and the hub's schema."""

import ast
import re
from pathlib import Path

import wandb

from prunefleet.infra.wire.graphql.execute import build_schema

from support.clients import OLDER

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
SCHEMA = build_schema()
