"""Inputs with fields unknown here: read field by field, refused by field."""

from collections.abc import Callable
from typing import Any

import pytest

from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.wire.graphql.arguments import Given
from prunefleet.infra.wire.graphql.ids import decode, encode


def test_fields_are_read_and_unknown_ones_passed_over() -> None:
    """A newer client's further fields do no harm; numbers may come as text."""
    value = {"name": "a", "n": "7", "yes": True, "ids": ["x"], "parts": [{"k": "v"}], "tomorrow": object()}
    given = Given(value)
    assert (given.text("name"), given.maybe("none"), given.text("none")) == ("a", None, "")
    assert (given.whole("n"), given.whole("none"), given.flag("yes"), given.flag("none")) == (7, None, True, False)
    assert given.texts("ids") == ["x"]
    assert [part.text("k") for part in given.objects("parts")] == ["v"]
    assert Given({}).maybe_id("Run", "id") is None


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, lambda given: given.text("f")),
        ("\ud800", lambda given: given.text("f")),
        ("1.5", lambda given: given.whole("f")),
        (10**30, lambda given: given.whole("f")),
        ("x", lambda given: given.texts("f")),
        ([1], lambda given: given.texts("f")),
        (["x"], lambda given: given.objects("f")),
        ({"a": 1}, lambda given: given.objects("f")),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(value: object, read: Callable[[Given], Any]) -> None:
    """The line names the field and what would be right."""
    with pytest.raises(Invalid, match=r"^f: .*; send "):
        read(Given({"f": value}))


def test_what_is_no_object_or_no_id_is_refused() -> None:
    """An input must be an object, an id one that was handed out."""
    with pytest.raises(Invalid, match="send an object"):
        Given([1])
    with pytest.raises(Missing):
        decode("Run", encode("Artifact", 3))
    with pytest.raises(Missing):
        decode("Run", encode("Run", 10**30))
