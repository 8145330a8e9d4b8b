"""The schema against the operations that the installed clients themselves hold."""

import re
from pathlib import Path

import graphql
import pytest

from prunefleet.infra.wire.graphql.schema_listing import NOT_SERVED

from support.schema import CLIENTS, FOLDERS, SCHEMA, operations

REFUSED = {name for line in NOT_SERVED.values() for name in line.split()}
CASES = [pytest.param(text, id=f"{name}-{client}") for (name, text), client in CLIENTS.items() if name not in REFUSED]


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
