"""The docs say what the code does: commands, settings, sweep-file keys, links, the README's bounds."""

import re
from pathlib import Path

import pytest

from prunefleet.agent.__main__ import parser as agent_parser
from prunefleet.infra.cli import AGENT_COMMANDS, COMMANDS, HUB_COMMANDS, Command
from prunefleet.infra.cli import parser as infra_parser
from prunefleet.infra.settings import BY_NAME, SETTINGS, VARIABLES
from prunefleet.objective.sweepfile import BLOCKS, SINGLE

from support.page import blocks, commands
from support.paths import ROOT

PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def _docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("command", [*(command.name for command in COMMANDS), *AGENT_COMMANDS])
def test_every_command_has_a_section(command: str) -> None:
    """docs/commands.md has a section for every command."""
    assert re.search(rf"^## `prunefleet {command}\b", _docs("commands.md"), re.MULTILINE)


@pytest.mark.parametrize("command", HUB_COMMANDS, ids=lambda command: command.name)
def test_every_command_of_the_hub_has_a_row(command: Command) -> None:
    """docs/commands.md has a row for every word after `prunefleet hub`, with its help and its own options."""
    rows = re.findall(rf"^\| `prunefleet hub {command.name}\b.*$", _docs("commands.md"), re.MULTILINE)
    assert len(rows) == 1
    assert command.help in rows[0]
    assert [name for name in command.settings if name != "hub_data" and BY_NAME[name].flag not in rows[0]] == []


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_in_the_table(setting: object) -> None:
    """docs/settings.md has a row for every setting, with its option, variable and default as the code has them."""
    variable = f"`{setting.env}`" if setting.env else ""
    default = f"`{setting.default}`" if setting.default not in (None, False) else ""
    assert f"| `{setting.flag}` | {variable} | {default} | {setting.help} |" in _docs("settings.md")


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_every_variable_is_in_the_table(variable: object) -> None:
    """docs/settings.md has a row for every environment variable that trials read."""
    assert f"| `{variable.name}` |" in _docs("settings.md")


def test_no_setting_is_documented_that_does_not_exist() -> None:
    """docs/settings.md names no option that the commands do not have."""
    flags = {setting.flag for setting in SETTINGS}
    assert set(re.findall(r"^\| `(--[a-z-]+)`", _docs("settings.md"), re.MULTILINE)) == flags


@pytest.mark.parametrize(
    "key", [*SINGLE, "options.", "ratio", *(f"{block}.{key}" for block in BLOCKS for key in BLOCKS[block])]
)
def test_every_sweep_file_key_is_documented(key: str) -> None:
    """docs/sweepfile.md has a row for every key below `parameters`."""
    assert re.search(rf"^\| `{re.escape(key)}", _docs("sweepfile.md"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists in the tree."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_to_paste_are_understood(page: Path) -> None:
    """Every `prunefleet` command in a code block of a page exists, with the words and options that it is given."""
    for block in blocks(page.read_text()):
        for words in (words for line in block.lines for words in commands(line)):
            known = agent_parser() if words and words[0] in AGENT_COMMANDS else infra_parser()
            try:
                known.parse_args(words)
            except SystemExit:
                pytest.fail(f"{page.name}: prunefleet {' '.join(words)}")


TESTS_NAMED = sorted({(page, name) for page in PAGES for name in re.findall(r"\btest_\w+\.py\b", page.read_text())})


@pytest.mark.parametrize(("page", "name"), TESTS_NAMED, ids=[f"{page.name}-{name}" for page, name in TESTS_NAMED])
def test_a_test_that_a_page_names_exists(page: Path, name: str) -> None:
    """A file of tests that a page points to is there."""
    assert list((ROOT / "tests").rglob(name)), f"{page.name} names {name}"


def test_the_fleet_page_has_a_machine_for_every_block() -> None:
    """docs/fleet.md says where each of its lines is pasted, and is two pages at most."""
    text = _docs("fleet.md")
    assert len(text.splitlines()) <= 160
    machines = {block.machine for block in blocks(text)}
    assert machines == {"train1", "train2", "edge1", "edge2", "edge3"}


def test_readme_is_short_and_starts_with_a_command() -> None:
    """The README has at most 120 lines, its first command by line 20, and one screenshot."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert any(line.startswith(("git clone", "make ", "pip install")) for line in lines[:20])
    assert sum("![" in line for line in lines) == 1
