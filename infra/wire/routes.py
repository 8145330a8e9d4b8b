"""All endpoints of the wire."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from infra.hub.service import Hub
from infra.wire import agents, artifacts, files, filestream, graphql, join, runs, sweeps, users

# Each module has a table RESOLVERS.
RESOLVING = (users, runs, sweeps, files, artifacts)


def routes(hub: Hub) -> list[BaseRoute]:
    """GraphQL, the runs' streams, files and artifacts, agents, how hosts join, and the client's telemetry."""
    executor = graphql.Executor(graphql.build_schema(*(module.RESOLVERS for module in RESOLVING)))
    telemetry = [Route(f"/sdk/otel/v1/{kind}", _received, methods=["POST"]) for kind in ("metrics", "logs", "traces")]
    streams = [*filestream.routes(hub), *files.routes(hub), *artifacts.routes(hub)]
    return [*graphql.routes(hub, executor), *streams, *agents.routes(hub), *join.routes(hub), *telemetry]


def _received(_request: Request) -> Response:
    """The client's telemetry ends here: taken, so that it does not try again, and not kept."""
    return JSONResponse({})
