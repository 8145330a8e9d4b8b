"""Proven groups as a file, so that trials on one host do not prove them again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunefleet.agent.compress.cut import Slot
from prunefleet.agent.compress.group import Branch, Group
from prunefleet.agent.compress.trace.channel_sets import Count
from prunefleet.agent.host.cache_files import replace_file

FORMAT = 1
"""Changes with what the file holds, and with the experiments that decide."""


def write(path: Path, groups: Sequence[Group], whole: Mapping[str, str]) -> None:
    """Write the groups of a network, and why its other layers stay whole."""
    content = {"format": FORMAT, "groups": [asdict(group) for group in groups], "whole": dict(whole)}
    replace_file(path, json.dumps(content).encode())


def read(path: Path) -> tuple[tuple[Group, ...], dict[str, str]] | None:
    """Return what `write` wrote; None where there is no such file, or it is damaged or of another format."""
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            return None
        return tuple(_group(each) for each in found["groups"]), dict(found["whole"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _group(entry: Mapping[str, Any]) -> Group:
    slots = tuple(
        Slot(**{**each, "channels": tuple(each["channels"]), "roots": tuple(each["roots"])}) for each in entry["slots"]
    )
    counts = tuple(Count(**each) for each in entry["counts"])
    branch = entry["branch"] and Branch(**{**entry["branch"], "passed": tuple(entry["branch"]["passed"])})
    lists = {
        "branch": branch,
        "members": tuple(entry["members"]),
        "tied": tuple(entry["tied"]),
        "slots": slots,
        "counts": counts,
    }
    return Group(**{**entry, **lists})
