"""W&B's `parameters` block as distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.controller.parameters import DISTRIBUTIONS, Categorical, NumberDistribution, identity, parse
from prunefleet.objective.errors import BadInput

NUMBERS: dict[str, dict[str, Any]] = {
    "uniform": {"min": -1.0, "max": 3.0},
    "q_uniform": {"min": 0.0, "max": 0.875, "q": 0.125},
    "int_uniform": {"min": 2, "max": 9},
    "log_uniform": {"min": -5.0, "max": 1.0},
    "q_log_uniform": {"min": 0.0, "max": 3.0, "q": 2},
    "log_uniform_values": {"min": 1e-5, "max": 1e-1},
    "q_log_uniform_values": {"min": 16, "max": 256, "q": 16},
    "inv_log_uniform": {"min": 1.0, "max": 4.0},
    "inv_log_uniform_values": {"min": 0.1, "max": 10.0},
    "normal": {"mu": 3.0, "sigma": 2.0},
    "q_normal": {"q": 0.5},
    "log_normal": {"mu": 0.0, "sigma": 0.5},
    "q_log_normal": {"q": 0.25},
    "beta": {"a": 2.0, "b": 5.0},
    "q_beta": {"a": 2.0, "b": 2.0, "q": 0.1},
}


def distribution(settings: dict[str, Any]) -> Categorical | NumberDistribution:
    (leaf,) = parse({"x": settings}).leaves
    return leaf.distribution


def test_every_distribution_is_here() -> None:
    """All that W&B documents is understood."""
    assert set(NUMBERS) == set(DISTRIBUTIONS) - {"constant", "categorical", "categorical_w_probabilities"}


@pytest.mark.parametrize("name", NUMBERS)
@given(unit=st.floats(0, 1))
def test_within_bounds_and_on_grid(name: str, unit: float) -> None:
    """A value is finite, within the bounds, a multiple of q, and rises with the quantile."""
    made = distribution({"distribution": name, **NUMBERS[name]})
    assert isinstance(made, NumberDistribution)
    value = made.quantile(unit)
    assert math.isfinite(value)
    assert made.low - 1e-9 <= value <= made.high + 1e-9
    assert made.quantile(0.0) <= value <= made.quantile(1.0)
    assert made.q is None or abs(value / made.q - round(value / made.q)) < 1e-6
    assert made.levels is None or value in made.levels


@pytest.mark.parametrize("name", [name for name in NUMBERS if not name.startswith(("q_", "int_"))])
@given(unit=st.floats(0.01, 0.99))
def test_place_and_back(name: str, unit: float) -> None:
    """The place of a quantile is the quantile's number."""
    made = distribution({"distribution": name, **NUMBERS[name]})
    assert made.unit(made.quantile(unit)) == pytest.approx(unit, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("log_uniform", math.exp(-5), math.exp(1)),
        ("inv_log_uniform", math.exp(-4), math.exp(-1)),
        ("inv_log_uniform_values", 0.1, 10),
    ],
)
def test_ends(name: str, low: float, high: float) -> None:
    """Logarithmic distributions take their bounds as exponents unless their name says values."""
    made = distribution({"distribution": name, **NUMBERS[name]})
    assert (made.quantile(0), made.quantile(1)) == (pytest.approx(low), pytest.approx(high))


def test_grid_values_are_clean() -> None:
    """Multiples of q are the decimal numbers that a user would write."""
    assert distribution({"distribution": "q_uniform", "min": 0, "max": 0.5, "q": 0.1}).levels == (
        0.0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
    )
    assert distribution({"min": 1, "max": 3}).levels == (1, 2, 3)


def test_probabilities() -> None:
    """A weighted choice follows its weights; without weights all values are alike."""
    weighted = distribution({"values": ["a", "b"], "probabilities": [0.9, 0.1]})
    assert [weighted.quantile(unit) for unit in (0.0, 0.89, 0.91, 1.0)] == ["a", "a", "b", "b"]
    assert [distribution({"values": [1, 2]}).quantile(unit) for unit in (0.49, 0.51)] == [1, 2]


def test_nested_block() -> None:
    """Nested parameters give a nested config, constants included, and are read back from one."""
    block = {
        "net": {"parameters": {"depth": {"values": [1, 2]}, "name": {"value": "x"}}},
        "lr.max": {"min": 0.0, "max": 1.0},
    }
    space = parse(block)
    config = space.config({"net.depth": 2, "lr.max": 0.5})
    assert config == {"net": {"depth": 2, "name": "x"}, "lr.max": 0.5}
    assert space.read({**config, "host": "h"}) == {"net.depth": 2, "lr.max": 0.5}
    assert space.point(space.read({"net": {"depth": 2}})) is None


def test_values_may_be_anything() -> None:
    """None, lists and mappings are values like others; 1 and 1.0 are one value, 1 and true are two."""
    space = parse({"x": {"values": [None, [1, 2], {"a": 1}]}})
    assert [space.read({"x": value}) for value in (None, [1, 2])] == [{"x": None}, {"x": [1, 2]}]
    assert identity(1) == identity(1.0) != identity(True)
    assert parse({"x": {"value": {"parameters": 1}}}).config({}) == {"x": {"parameters": 1}}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (3, "parameters.x"),
        ({}, "parameters.x"),
        ({"distribution": "gauss"}, "parameters.x.distribution"),
        ({"distribution": "uniform", "min": 0.0}, "parameters.x.max"),
        ({"min": 2.0, "max": 1.0}, "parameters.x.min"),
        ({"min": 0.0, "max": math.inf}, "parameters.x.max"),
        ({"min": 0.0, "max": True}, "parameters.x.max"),
        ({"distribution": "log_uniform_values", "min": 0.0, "max": 1.0}, "parameters.x.min"),
        ({"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0}, "parameters.x.q"),
        ({"distribution": "normal", "sigma": -1.0}, "parameters.x.sigma"),
        ({"distribution": "uniform", "min": 0.0, "max": 1.0, "q": 0.1}, "parameters.x.q"),
        ({"values": []}, "parameters.x.values"),
        ({"values": "abc"}, "parameters.x.values"),
        ({"values": [1, 2], "probabilities": [0.5]}, "parameters.x.probabilities"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "parameters.x.probabilities"),
        ({"parameters": {}}, "parameters.x.parameters"),
    ],
)
def test_bad_settings(settings: Any, field: str) -> None:
    """What cannot be right is refused in one line that names the field."""
    with pytest.raises(BadInput) as caught:
        parse({"x": settings})
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_no_parameters() -> None:
    """A sweep without parameters is refused."""
    with pytest.raises(BadInput, match="parameters"):
        parse({})
