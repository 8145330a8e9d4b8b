"""Executes W&B's GraphQL operations: schema from the *.graphql files, resolvers from the modules beside this one.

A resolver is `fn(root, info, **arguments)`; `info.context` is a `Context`. The root of a Run is a `RunRow`, of a
Project a `ProjectRow`, and so on. A field without a resolver reads the attribute of the same name in snake case.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import graphql as gql
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import HubError, Invalid, Missing
from prunefleet.infra.hub.store.rows import RunRow, UserRow
from prunefleet.infra.hub.users.access import may
from prunefleet.infra.wire.graphql.cost import check_items, check_text, check_values
from prunefleet.infra.wire.graphql.filters import snake
from prunefleet.infra.wire.graphql.open_inputs import RULES, known_variables, without_unknown
from prunefleet.infra.wire.graphql.refusals import reason
from prunefleet.infra.wire.http import Json, authenticate, endpoint, parse_json

log = logging.getLogger(__name__)
Resolvers = Mapping[str, Mapping[str, Callable[..., Any]]]
MAX_TOKENS = 10_000
_SIGNED = re.compile(r"/(upload|download)/[\w.-]+")
UNKNOWN = "(docs/wire.md lists what this server does)"
INTERNAL = "the hub failed on this operation; its log says why"


@dataclass(frozen=True)
class Context:
    """What every resolver may use: the hub, the user who asks, and the address they reached the hub under.

    `selected` remembers filtered runs for the one request: clients ask for their number and for a page of them.
    """

    hub: Hub
    user: UserRow
    base_url: str
    selected: dict[tuple[int, str | None], list[RunRow]] = field(default_factory=dict)


if TYPE_CHECKING:
    Info = gql.GraphQLResolveInfo[Context]
else:
    Info = gql.GraphQLResolveInfo


def build_schema(*tables: Resolvers) -> gql.GraphQLSchema:
    """The schema of all *.graphql files of this package with the resolvers of `tables` in place.

    Raises `KeyError` when a resolver names a type or field that the schema lacks.
    """
    folder = resources.files("prunefleet.infra.wire.graphql")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".graphql")), key=lambda f: f.name)
    schema = gql.build_schema("\n".join(f.read_text(encoding="utf-8") for f in files))
    for name, scalar in _SCALARS.items():
        _set_scalar(schema, name, scalar)
    for kind in schema.type_map.values():
        if isinstance(kind, gql.GraphQLObjectType):
            kind.is_type_of = _may_leave
    for table in tables:
        for type_name, fields in table.items():
            for place, resolver in fields.items():
                schema.type_map[type_name].fields[place].resolve = resolver  # type: ignore[attr-defined]
    return schema


def descriptions(schema: gql.GraphQLSchema, type_name: str) -> dict[str, str]:
    """A type's described fields by name, in the schema's order."""
    fields: Mapping[str, gql.GraphQLField] = schema.type_map[type_name].fields  # type: ignore[attr-defined]
    return {name: field.description for name, field in fields.items() if field.description}


class Executor:
    """Runs operations against one schema; parsed and validated documents are kept, for clients repeat theirs."""

    def __init__(self, schema: gql.GraphQLSchema) -> None:
        self._schema = schema
        self._document = lru_cache(maxsize=512)(self._parse)

    def _parse(self, query: str) -> gql.DocumentNode | tuple[gql.GraphQLError, ...]:
        try:
            document = gql.parse(query, max_tokens=MAX_TOKENS)
        except gql.GraphQLError as error:
            return (error,)
        check_text(document)  # before it is validated, which takes long for what is long
        document = without_unknown(self._schema, document)
        return tuple(gql.validate(self._schema, document, RULES)) or document

    def run(
        self, query: str, variables: Mapping[str, Any], operation: str | None, context: Context
    ) -> tuple[dict[str, Any], int]:
        """The answer and its HTTP status: 400 for what the schema rejects, the error's own for what the hub refuses.

        Raises `Invalid` for an operation that asks for too much.
        """
        document = self._document(query)
        if isinstance(document, tuple):
            found = [error.message for error in document]
            told = [why] if (why := reason(found)) else [f"{found[0]} {UNKNOWN}", *found[1:]]
            return {"errors": [{"message": text} for text in told]}, 400
        check_values(document, variables)
        result = gql.execute_sync(
            self._schema,
            document,
            context_value=context,
            variable_values=known_variables(self._schema, document, variables),
            operation_name=operation or None,  # the client sends "" for none
            field_resolver=_attribute,
        )
        if not result.errors:
            return {"data": result.data}, 200
        return {"data": result.data, "errors": [_message(e) for e in result.errors]}, _status(result.errors)


def routes(hub: Hub, executor: Executor) -> list[BaseRoute]:
    """`POST /graphql`."""
    noisy = bool(os.environ.get("PRUNEFLEET_LOG_OPERATIONS"))

    def serve(request: Request, body: bytes) -> Response:
        context = Context(hub, authenticate(request, hub), str(request.base_url).rstrip("/"))
        asked = parse_json(body)
        query, variables = str(asked.get("query", "")), asked.get("variables") or {}
        if not isinstance(variables, dict):
            raise Invalid(f"variables: got {type(variables).__name__}; send a JSON object")
        check_items(variables)
        started = time.perf_counter()
        answer, status = executor.run(query, variables, asked.get("operationName"), context)
        if noisy:
            _log_operation(query, variables, answer, status, time.perf_counter() - started)
        return Json(answer, status)

    return [Route("/graphql", endpoint(serve, hub.limits.body), methods=["POST"])]


def _log_operation(query: str, variables: object, answer: Mapping[str, Any], status: int, seconds: float) -> None:
    name = " ".join(re.findall(r"(?:query|mutation)\s+\w+", query))
    shown = _SIGNED.sub(r"/\1/…", str(answer.get("errors") or answer.get("data")))  # whoever reads a log may not use it
    log.warning("%s %d %.1f ms %s -> %s", name, status, seconds * 1e3, json.dumps(variables)[:2000], shown[:600])


def _cause(error: gql.GraphQLError) -> Exception | None:
    """What a resolver raised; None for a mistake in the request, such as a variable that does not fit its type."""
    cause: Exception | None = error
    while isinstance(cause, gql.GraphQLError):
        cause = cause.original_error
    return Invalid("input: nested too deep; send it flat") if isinstance(cause, RecursionError) else cause


def _message(error: gql.GraphQLError) -> dict[str, Any]:
    cause = _cause(error)
    if cause is None or isinstance(cause, HubError):
        return {"message": error.message if cause is None else str(cause), "path": error.path}
    log.error("operation failed at %s", error.path, exc_info=cause)
    return {"message": INTERNAL, "path": error.path}


def _status(errors: Sequence[gql.GraphQLError]) -> int:
    cause = _cause(errors[0])
    if cause is None:
        return 400 if errors[0].path is None else 500
    return cause.status if isinstance(cause, HubError) else 500


def _may_leave(value: Any, info: Info) -> bool:
    """The last door: no object of another's entity leaves, whichever field led to it. Raises `Missing`."""
    entity = getattr(value, "entity", None)
    if isinstance(entity, str) and not may(info.context.user, entity):
        raise Missing("it is not here; it may have been deleted")
    return True


def _attribute(root: Any, info: Info, **_arguments: Any) -> Any:
    if isinstance(root, Mapping):
        return root.get(info.field_name)
    return getattr(root, snake(info.field_name), None)


def _iso(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _int64(value: Any) -> int:
    """A whole number of 64 bits, which may come as text."""
    if isinstance(value, bool) or not _WHOLE.fullmatch(str(value)) or not -_LIMIT <= int(value) < _LIMIT:
        raise gql.GraphQLError(f"Int64: got {str(value)[:40]!r}; send a whole number of 64 bits")
    return int(value)


_WHOLE = re.compile(r"-?[0-9]{1,19}")
_LIMIT = 1 << 63


@dataclass(frozen=True)
class _Scalar:
    out: Callable[[Any], Any] = lambda value: value
    into: Callable[[Any], Any] = lambda value: value


_SCALARS: dict[str, _Scalar] = {
    "JSON": _Scalar(),
    "JSONString": _Scalar(out=_json_text, into=_json_text),
    "Int64": _Scalar(out=_int64, into=_int64),
    "DateTime": _Scalar(out=_iso),
    "Duration": _Scalar(),
}


def _set_scalar(schema: gql.GraphQLSchema, name: str, scalar: _Scalar) -> None:
    """Both of graphql-core's vocabularies: 3.2 knows the first pair of names, 3.3 reads the second."""
    kind = schema.type_map[name]
    for attribute in ("serialize", "coerce_output_value"):
        setattr(kind, attribute, scalar.out)
    for attribute in ("parse_value", "coerce_input_value"):
        setattr(kind, attribute, scalar.into)
