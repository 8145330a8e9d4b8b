"""All endpoints of the wire."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.wire import (
    agent_routes,
    file_routes,
    filestream,
    join_routes,
    run_operations,
    sweep_operations,
    user_operations,
)
from prunefleet.infra.wire.artifacts import operations
from prunefleet.infra.wire.graphql import execute

# Each module has a table RESOLVERS.
RESOLVING = (user_operations, run_operations, sweep_operations, file_routes, operations)


def routes(hub: Hub) -> list[BaseRoute]:
    """GraphQL, the runs' streams, files and artifacts, agents, how hosts join, and the client's telemetry."""
    executor = execute.Executor(execute.build_schema(*(module.RESOLVERS for module in RESOLVING)))
    telemetry = [Route(f"/sdk/otel/v1/{kind}", _received, methods=["POST"]) for kind in ("metrics", "logs", "traces")]
    streams = [*filestream.routes(hub), *file_routes.routes(hub), *operations.routes(hub)]
    return [*execute.routes(hub, executor), *streams, *agent_routes.routes(hub), *join_routes.routes(hub), *telemetry]


def _received(_request: Request) -> Response:
    """The client's telemetry ends here: taken, so that it does not try again, and not kept."""
    return JSONResponse({})
