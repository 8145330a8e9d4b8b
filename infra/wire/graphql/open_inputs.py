"""Lets the requests of a newer client in: input fields that the schema does not know are passed over, not refused.

GraphQL itself refuses them, and the client takes a refusal for an older server or for the end of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import graphql as gql

# With an unknown field its variable goes out of use, which is no mistake of the client's.
RULES = tuple(rule for rule in gql.specified_rules if rule is not gql.NoUnusedVariablesRule)


def without_unknown(schema: gql.GraphQLSchema, document: gql.DocumentNode) -> gql.DocumentNode:
    """The document without unknown fields of inputs, and without the variables of unknown types that they used."""
    types = gql.TypeInfo(schema)
    known: gql.DocumentNode = gql.visit(document, gql.TypeInfoVisitor(types, _Fields(types)))
    used = _Used()
    gql.visit(known, used)
    pruned: gql.DocumentNode = gql.visit(known, _Definitions(schema, used.names))
    return pruned


def known_variables(
    schema: gql.GraphQLSchema, document: gql.DocumentNode, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """The variables without unknown fields in the inputs they hold."""
    kinds = {
        each.variable.name.value: gql.type_from_ast(schema, each.type)
        for definition in document.definitions
        if isinstance(definition, gql.OperationDefinitionNode)
        for each in definition.variable_definitions or ()
    }
    return {name: _known(kinds.get(name), value) for name, value in variables.items()}


def _known(kind: Any, value: Any) -> Any:
    if isinstance(kind, gql.GraphQLNonNull):
        return _known(kind.of_type, value)
    if isinstance(kind, gql.GraphQLList) and isinstance(value, list):
        return [_known(kind.of_type, each) for each in value]
    if isinstance(kind, gql.GraphQLInputObjectType) and isinstance(value, Mapping):
        return {name: _known(kind.fields[name].type, each) for name, each in value.items() if name in kind.fields}
    return value


class _Fields(gql.Visitor):
    """Takes out fields that an input type does not have."""

    def __init__(self, types: gql.TypeInfo) -> None:
        super().__init__()
        self._types = types

    def enter_object_field(self, node: gql.ObjectFieldNode, *_: object) -> Any:
        kind = gql.get_named_type(self._types.get_parent_input_type())
        unknown = isinstance(kind, gql.GraphQLInputObjectType) and node.name.value not in kind.fields
        return gql.REMOVE if unknown else None


class _Used(gql.Visitor):
    """Notes the variables that are used; their definitions do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_variable_definition(self, _node: gql.VariableDefinitionNode, *_: object) -> Any:
        return gql.SKIP

    def enter_variable(self, node: gql.VariableNode, *_: object) -> None:
        self.names.add(node.name.value)


class _Definitions(gql.Visitor):
    """Takes out definitions of unused variables whose type the schema does not know."""

    def __init__(self, schema: gql.GraphQLSchema, used: set[str]) -> None:
        super().__init__()
        self._schema, self._used = schema, used

    def enter_variable_definition(self, node: gql.VariableDefinitionNode, *_: object) -> Any:
        unused = node.variable.name.value not in self._used
        return gql.REMOVE if unused and gql.type_from_ast(self._schema, node.type) is None else gql.SKIP
