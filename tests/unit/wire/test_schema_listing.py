"""docs/wire.md against the schema and the routes."""

from pathlib import Path

import pytest
from starlette.routing import Route

from prunefleet.infra.wire.graphql.execute import build_schema, descriptions
from prunefleet.infra.wire.graphql.schema_listing import ENDPOINTS, NOT_SERVED, tables
from prunefleet.infra.wire.routes import RESOLVING, routes

from support.hub import Clock, local_hub
from support.paths import ROOT

PAGE = ROOT / "docs" / "wire.md"
SCHEMA = build_schema()


@pytest.mark.parametrize("table", tables(), ids=["addresses", "queries", "mutations", "project", "refused"])
def test_the_page_shows_the_tables(table: str) -> None:
    """docs/wire.md holds the tables as `python -m prunefleet.infra.wire.graphql.schema_listing` prints them."""
    assert table in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Query", "Mutation"])
def test_every_operation_is_described_and_resolved(name: str) -> None:
    """A field of Query or Mutation without a line in the schema, or without a resolver, fails here."""
    fields = set(SCHEMA.type_map[name].fields)
    assert set(descriptions(SCHEMA, name)) == fields
    assert fields == {field for module in RESOLVING for field in module.RESOLVERS.get(name, {})}


def test_every_address_is_listed(tmp_path: Path) -> None:
    """The table of addresses names each route of the wire, with its method."""
    with local_hub(tmp_path, Clock()) as hub:
        found = {
            (route.path, method) for route in routes(hub) if isinstance(route, Route) for method in route.methods or ()
        }
    served = {f"{method} {path.replace(':path', '')}" for path, method in found if method != "HEAD"}
    listed = {f"POST /sdk/otel/v1/{kind}" for kind in ("metrics", "logs", "traces")} | set(ENDPOINTS)
    assert served == listed - {"POST /sdk/otel/v1/{kind}"}


def test_what_is_not_served_is_named_once() -> None:
    """No operation of the client stands in two lines of the table."""
    names = [name for line in NOT_SERVED.values() for name in line.split()]
    assert len(names) == len(set(names))
