"""What a word or a text was meant to be."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.checks import as_number, choose, near

OPTIONS = ("root", "architecture", "positive_class", "size", "channels", "epochs", "dense_lr", "lr")


@pytest.mark.parametrize(
    ("got", "known", "meant"),
    [
        ("arch", OPTIONS, "architecture"),
        ("imagefolder", ("fashion_mnist", "torchvision", "image_folder"), "image_folder"),
        ("Positive-Class", OPTIONS, "positive_class"),
        ("chanels", OPTIONS, "channels"),
        ("fp32", ("f32", "bf16", "int8"), "f32"),
        ("x", OPTIONS, None),
        ("momentum", OPTIONS, None),
        (None, OPTIONS, None),
        ("", OPTIONS, None),
    ],
)
def test_a_word_is_understood(got: object, known: tuple[str, ...], meant: str | None) -> None:
    """A beginning, another case, dashes and misspellings lead to the word; what is like none leads nowhere."""
    assert near(got, known) == meant
    assert choose(got, known) == (f"did you mean {meant!r}?" if meant else f"use one of {', '.join(known)}")


@given(st.lists(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), min_size=1, unique=True), st.data())
def test_the_word_itself_is_always_nearest(words: list[str], data: st.DataObject) -> None:
    """What is known, written with other dashes and letters, is never taken for something longer."""
    word = data.draw(st.sampled_from(words))
    found = near(word.upper().replace("_", "-"), words)
    assert found is None or found.replace("_", "") == word.replace("_", "")


@pytest.mark.parametrize(
    ("got", "remedy"),
    [
        ("2%", "write 0.02"),
        ("2,5 %", "write 0.025"),
        ("-3%", "write -0.03"),
        ("1e-5", "YAML reads 1e-5 as text; write 1.0e-5"),
        ("1.5e5", "YAML reads 1.5e5 as text; write 1.5e+5"),
        ("1.0e-5", "write 1.0e-5, without quotes"),
        ("3", "write 3, without quotes"),
        ("three", None),
        ("", None),
        (3, None),
        (None, None),
        ("nan", None),
    ],
)
def test_a_text_that_is_a_number_is_told_as_one(got: object, remedy: str | None) -> None:
    """Percent, decimal commas, quotes, and the exponents that YAML takes for text."""
    assert as_number(got) == remedy


@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_is_to_be_written_is_that_number_to_yaml(value: float, short: bool) -> None:
    """However a number was written, the remedy's is one in YAML, and the same."""
    text = f"{value:g}" if short else repr(value)
    told = as_number(text)
    assert told is not None
    written = told.rpartition("write ")[2].removesuffix(", without quotes")
    assert float(yaml.safe_load(written)) == float(text) and not isinstance(yaml.safe_load(written), str)
