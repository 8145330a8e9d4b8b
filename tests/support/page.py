"""The code blocks of a page of the docs, as its reader pastes them: on which machine, in which section."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Lines to paste; `machine` is the last name in bold before them, if there is any in the section."""

    section: str
    machine: str
    lines: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """The code blocks of a page, in its order."""
    found, section, machine, after = [], "", "", 0
    for fence in FENCE.finditer(text):
        before = text[after : fence.start()]
        if heads := re.findall(r"^#+ (.*)$", before, re.MULTILINE):
            section, before = heads[-1], before.rpartition(f"# {heads[-1]}\n")[2]
        if named := re.findall(r"\*\*(\w+)\*\*", before):
            machine = named[-1]
        found.append(Block(section, machine, tuple(fence[1].splitlines())))
        after = fence.end()
    return found


def commands(line: str) -> list[list[str]]:
    """The words after each `prunefleet` in a line of a shell, without its comment."""
    lexed = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexed.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexed:
        if re.fullmatch("[&|;]+", word):
            found.append([])
        elif found[-1] or not re.match("[A-Z_]+=", word):
            found[-1].append(word)
    return [words[1:] for words in found if words and Path(words[0]).name == "prunefleet"]


def shown(page: Path, name: str) -> str:
    """The Python code that a page shows below the note that it is tested under that name."""
    code = re.search(rf"<!-- tested: {name} -->\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert code, f"{page.name} shows no {name}"
    return code[1]
