"""The examples that users copy: each runs as it stands."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import prunefleet

from support.controller import Problem, sweep_config
from support.paths import DOCS

EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_pruning_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It halves the channels of each group of a ResNet-18, which leaves a quarter of its parameters."""
    space: dict[str, Any] = {}
    exec(EXAMPLES[0], space)
    pruned, before = space["pruned"], sum(each.numel() for each in space["network"].parameters())
    assert pruned.kept == {group.name: group.width // 2 for group in space["found"]}
    assert pruned.params == pytest.approx(before / 4, rel=0.01)
    assert f"{pruned.params:,} parameters" in capsys.readouterr().out


def test_the_example_of_a_search_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asks for six candidates, tells what they measured, and has one of them recommended."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep_config()))
    (tmp_path / "profile.json").write_text(json.dumps(Problem.seeded(0).profile().to_json()))
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(EXAMPLES[1], space)
    assert [trial.outcome for trial in space["search"].trials] == ["scored"] * 6
    assert "Recommendation(" in capsys.readouterr().out


def test_the_page_has_two_examples() -> None:
    """No example of the page is left untested."""
    assert len(EXAMPLES) == 2


def test_the_example_of_the_package_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """What `help(prunefleet)` shows first runs as it stands."""
    lines = (inspect.getdoc(prunefleet) or "").splitlines()
    exec("\n".join(line[4:] for line in lines if line.startswith("    ")), {})
    assert capsys.readouterr().out.startswith("conv1 64\n")
