"""Requests of tomorrow's client: what the schema does not know of an input is passed over."""

from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.wire.graphql.execute import Context, Executor, build_schema
from prunefleet.infra.wire.routes import RESOLVING

from support.hub import Clock, first_user, local_hub

EXECUTOR = Executor(build_schema(*(module.RESOLVERS for module in RESOLVING)))
INLINE = """
mutation UpsertBucket($name: String!, $mood: RunMood, $tint: [RunTint!]!, $note: String) {
  upsertBucket(input: {name: $name, modelName: "demo", host: "h", mood: $mood, tint: $tint, theme: {note: $note}}) {
    bucket { name } inserted } }
"""
BY_VARIABLE = """
mutation CreateProject($input: UpsertModelInput!) { upsertModel(input: $input) { project { name } } }
"""


def ask(folder: Path, query: str, **variables: Any) -> tuple[dict[str, Any], int]:
    with local_hub(folder, Clock()) as hub:
        return EXECUTOR.run(query, variables, None, Context(hub, first_user(hub), "http://hub"))


def test_unknown_fields_written_out_are_passed_over(tmp_path: Path) -> None:
    """Fields beside the known ones, also of types and with variables that nobody knows here, do not stop a run."""
    answer, status = ask(tmp_path, INLINE, name="r", mood="CALM", tint=["RED"], note="n")
    assert (status, answer) == (200, {"data": {"upsertBucket": {"bucket": {"name": "r"}, "inserted": True}}})


def test_unknown_fields_of_a_variable_are_passed_over(tmp_path: Path) -> None:
    """The same for an input that comes as one variable."""
    answer, status = ask(tmp_path, BY_VARIABLE, input={"name": "new", "colour": {"of": "roses"}})
    assert (status, answer["data"]["upsertModel"]) == (200, {"project": {"name": "new"}})


@pytest.mark.parametrize(
    ("query", "variables", "word"),
    [
        ("mutation { deleteRun(input: {tomorrow: 1}) { success } }", {}, "id"),
        (BY_VARIABLE, {"input": {"name": 3}}, "String"),
        (BY_VARIABLE, {"input": "text"}, "UpsertModelInput"),
        ("query Q($x: News) { model(name: $x) { name } }", {"x": "y"}, "News"),
        ("{ viewer { tomorrow } }", {}, "tomorrow"),
    ],
)
def test_what_is_known_is_still_checked(tmp_path: Path, query: str, variables: dict[str, Any], word: str) -> None:
    """A known field that is missing or of the wrong kind, and an unknown field of an answer, are refused by name."""
    answer, status = ask(tmp_path, query, **variables)
    assert status == 400
    assert word in answer["errors"][0]["message"]
