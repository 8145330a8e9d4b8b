"""W&B's `parameters` block as a set of distributions, one per leaf.

Source of the distributions and their meaning: W&B's sweep configuration reference. A leaf turns a number in [0, 1] into
a value (`quantile`) and a value back into a number in [0, 1] (`unit`).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.sweepfile import in_braces, specification

MOST_LEVELS = 10_000  # a longer list of values is treated as continuous
_MISSING = object()
_EDGE = 1e-9  # keeps the quantiles of unbounded distributions finite

_NEEDS: Mapping[str, tuple[str, ...]] = {"uniform": ("min", "max"), "normal": (), "beta": ()}
_OPTIONAL: Mapping[str, Mapping[str, float]] = {
    "uniform": {},
    "normal": {"mu": 0.0, "sigma": 1.0},
    "beta": {"a": 1.0, "b": 1.0},
}
_SHAPES: Mapping[str, str] = {
    "uniform": "uniform",
    "int_uniform": "uniform",
    "log_uniform": "uniform",
    "log_uniform_values": "uniform",
    "inv_log_uniform": "uniform",
    "inv_log_uniform_values": "uniform",
    "normal": "normal",
    "log_normal": "normal",
    "beta": "beta",
}
_QUANTISED = ("q_uniform", "q_log_uniform", "q_log_uniform_values", "q_normal", "q_log_normal", "q_beta")
DISTRIBUTIONS = ("constant", "categorical", "categorical_w_probabilities", *_SHAPES, *_QUANTISED)


def identity(value: object) -> str:
    """A text that two values share when W&B would call them the same: 1 and 1.0 do, 1 and true do not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return json.dumps(value, sort_keys=True, default=str)


@dataclass(frozen=True)
class Categorical:
    """One of a list of values, each with its probability (equal ones unless given)."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None

    @property
    def levels(self) -> tuple[Any, ...]:
        """The values, in the order given."""
        return self.values

    @property
    def numeric(self) -> bool:
        """Whether the values lie on a line, so that neighbours are alike."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def quantile(self, unit: float) -> Any:
        """The value at `unit` of the cumulated probabilities."""
        reached = 0.0
        for value, weight in zip(
            self.values, self.probabilities or [1 / len(self.values)] * len(self.values), strict=True
        ):
            reached += weight
            if unit < reached:
                return value
        return self.values[-1]

    def unit(self, value: object) -> float:
        """The rank of `value` among the numbers of the list, in [0, 1]; asked only where `numeric`."""
        numbers = sorted(set(self.values))
        place = bisect_left(numbers, value)
        return min(place / max(len(numbers) - 1, 1), 1.0)


@dataclass(frozen=True)
class NumberDistribution:
    """A distribution over numbers: uniform, normal or beta of `a` and `b`, or its exponential; on multiples of `q`."""

    shape: str
    a: float
    b: float
    exponential: bool = False
    q: float | None = None
    low: float = -math.inf
    high: float = math.inf

    numeric = True

    @property
    def levels(self) -> tuple[float, ...] | None:
        """Every value it can take, ascending, or None when they are too many or not countable."""
        if self.low == self.high:
            return (self.low,)
        if self.q is None or not math.isfinite(self.low) or not math.isfinite(self.high):
            return None
        first, last = math.ceil(self.low / self.q - _EDGE), math.floor(self.high / self.q + _EDGE)
        if last - first >= MOST_LEVELS:
            return None
        return tuple(_multiple(step, self.q) for step in range(first, last + 1))

    def quantile(self, unit: float) -> float:
        """The value below which a share `unit` of the distribution lies."""
        value = self._inner(min(max(unit, 0.0), 1.0))
        value = math.exp(value) if self.exponential else value
        value = min(max(value, self.low), self.high)
        return value if self.q is None else self._rounded(value)

    def unit(self, value: object) -> float:
        """The share of the distribution that lies below `value`; a value outside the bounds counts as the bound."""
        number = min(max(float(value), self.low), self.high)  # type: ignore[arg-type]
        if self.exponential:
            number = math.log(max(number, 1e-300))
        return min(max(self._share(number), 0.0), 1.0)

    def _rounded(self, value: float) -> float:
        assert self.q is not None
        step = round(value / self.q)
        if math.isfinite(self.low):
            step = max(step, math.ceil(self.low / self.q - _EDGE))
        if math.isfinite(self.high):
            step = min(step, math.floor(self.high / self.q + _EDGE))
        return _multiple(step, self.q)

    def _inner(self, unit: float) -> float:
        if self.shape == "uniform":
            return self.a + unit * (self.b - self.a)
        if self.shape == "normal":
            return NormalDist(self.a, self.b).inv_cdf(min(max(unit, _EDGE), 1 - _EDGE))
        from scipy.special import betaincinv

        return float(betaincinv(self.a, self.b, min(max(unit, _EDGE), 1 - _EDGE)))

    def _share(self, number: float) -> float:
        if self.shape == "uniform":
            return 0.5 if self.a == self.b else (number - self.a) / (self.b - self.a)
        if self.shape == "normal":
            return NormalDist(self.a, self.b).cdf(number)
        from scipy.special import betainc

        return float(betainc(self.a, self.b, number))


@dataclass(frozen=True)
class Parameter:
    """One leaf of the block: where it stands and what it is drawn from."""

    path: tuple[str, ...]
    distribution: Categorical | NumberDistribution

    @property
    def name(self) -> str:
        """The path as one word, such as `ratio.stem`."""
        return ".".join(self.path)

    @property
    def constant(self) -> bool:
        """Whether there is nothing to choose."""
        return self.distribution.levels is not None and len(self.distribution.levels) == 1


@dataclass(frozen=True)
class ParameterSpace:
    """All leaves of a `parameters` block, in the order of the file."""

    leaves: tuple[Parameter, ...]
    free: tuple[Parameter, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", tuple(leaf for leaf in self.leaves if not leaf.constant))

    def config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A run's config, nested as the block is: `values` by leaf name, and the constants."""
        nested: dict[str, Any] = {}
        for leaf in self.leaves:
            place = nested
            for part in leaf.path[:-1]:
                place = place.setdefault(part, {})
            place[leaf.path[-1]] = values[leaf.name] if leaf.name in values else leaf.distribution.quantile(0.5)
        return nested

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the free leaves found in a run's nested `config`, by leaf name."""
        found = {leaf.name: _at(config, leaf.path) for leaf in self.free}
        return {name: value for name, value in found.items() if value is not _MISSING}

    def point(self, params: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The free values of a trial as a comparable key, or None where one is missing."""
        if any(leaf.name not in params for leaf in self.free):
            return None
        return tuple(identity(params[leaf.name]) for leaf in self.free)


def parse(parameters: Mapping[str, Any]) -> ParameterSpace:
    """The space that a sweep's `parameters` block describes.

    Raises `BadInput` naming the parameter for an unknown distribution, a missing or wrong bound, or an empty block.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise BadInput("parameters", parameters, "give at least one parameter, such as lr: {min: 0.001, max: 0.1}")
    return ParameterSpace(tuple(_leaves(parameters, ())))


def settings(parameters: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the file says of each leaf, by the leaf's name; of a block that `parse` takes."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, said in parameters.items():
        inner = settings(said["parameters"]) if "parameters" in said else {"": said}
        found |= {f"{name}.{leaf}" if leaf else str(name): each for leaf, each in inner.items()}
    return found


def _leaves(block: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Parameter]:
    for name, settings in block.items():
        here = (*path, str(name))
        if not isinstance(settings, Mapping):
            raise BadInput(_field(here), settings, in_braces(settings))
        if "parameters" in settings:
            yield from _leaves(_nested(settings["parameters"], here), here)
        else:
            yield Parameter(here, _distribution(_field(here), settings))


def _nested(block: object, path: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(block, Mapping) or not block:
        raise BadInput(_field(path) + ".parameters", block, "give at least one parameter")
    return block


def _distribution(name: str, settings: Mapping[str, Any]) -> Categorical | NumberDistribution:
    kind = settings.get("distribution", _implied(settings))
    if kind is None:
        raise BadInput(name, dict(settings), specification(settings))
    if kind not in DISTRIBUTIONS:
        raise BadInput(f"{name}.distribution", kind, checks.choose(kind, DISTRIBUTIONS, "give one of"))
    if kind == "constant":
        _only(name, settings, ("value",), ())
        return Categorical((settings["value"],))
    if kind.startswith("categorical"):
        return _choice(name, kind, settings)
    return _number_distribution(name, kind, settings)


def _implied(settings: Mapping[str, Any]) -> str | None:
    if "value" in settings:
        return "constant"
    if "values" in settings:
        return "categorical_w_probabilities" if "probabilities" in settings else "categorical"
    if "min" in settings and "max" in settings:
        whole = all(isinstance(settings[key], int) and not isinstance(settings[key], bool) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    return None


def _choice(name: str, kind: str, settings: Mapping[str, Any]) -> Categorical:
    weighted = kind == "categorical_w_probabilities" or "probabilities" in settings
    _only(name, settings, ("values", "probabilities") if weighted else ("values",), ())
    values = settings["values"]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise BadInput(f"{name}.values", values, "give a list of at least one value")
    return Categorical(
        tuple(values), _probabilities(name, settings["probabilities"], len(values)) if weighted else None
    )


def _probabilities(name: str, weights: Sequence[object], count: int) -> tuple[float, ...]:
    numbers = tuple(_number(f"{name}.probabilities", weight) for weight in weights)
    if len(numbers) != count or min(numbers) < 0 or abs(sum(numbers) - 1) > 1e-6:
        raise BadInput(f"{name}.probabilities", list(weights), f"give {count} numbers of at least 0 that add up to 1")
    return numbers


def _number_distribution(name: str, kind: str, settings: Mapping[str, Any]) -> NumberDistribution:
    base = kind.removeprefix("q_")
    shape = _SHAPES[base]
    optional = {**_OPTIONAL[shape], **({"q": 1.0} if base != kind else {})}
    _only(name, settings, _NEEDS[shape], tuple(optional))
    numbers = {
        key: _number(f"{name}.{key}", value) for key, value in {**optional, **settings}.items() if key != "distribution"
    }
    grid = settings.get("q", 1.0) if base != kind else (1 if base == "int_uniform" else None)
    _positive(name, numbers)
    return _uniform(name, base, numbers, grid) if shape == "uniform" else _unbounded(base, shape, numbers, grid)


def _unbounded(base: str, shape: str, numbers: Mapping[str, float], grid: float | None) -> NumberDistribution:
    if shape == "beta":
        return NumberDistribution("beta", numbers["a"], numbers["b"], q=grid, low=0.0, high=1.0)
    return NumberDistribution("normal", numbers["mu"], numbers["sigma"], exponential=base == "log_normal", q=grid)


def _uniform(name: str, base: str, numbers: Mapping[str, float], grid: float | None) -> NumberDistribution:
    low, high = numbers["min"], numbers["max"]
    if low > high:
        raise BadInput(f"{name}.min", low, f"give a number of at most max, which is {high:g}")
    if not base.endswith("log_uniform") and not base.endswith("log_uniform_values"):
        return NumberDistribution("uniform", low, high, q=grid, low=low, high=high)
    if base.endswith("_values"):
        if low <= 0:
            raise BadInput(f"{name}.min", low, "give a number above 0 for a logarithmic distribution")
        return NumberDistribution(
            "uniform", math.log(low), math.log(high), exponential=True, q=grid, low=low, high=high
        )
    a, b = (-high, -low) if base.startswith("inv_") else (low, high)
    return NumberDistribution("uniform", a, b, exponential=True, q=grid, low=math.exp(a), high=math.exp(b))


def _positive(name: str, numbers: Mapping[str, float]) -> None:
    for key in ("q", "sigma", "a", "b"):
        if numbers.get(key, 1.0) <= 0:
            raise BadInput(f"{name}.{key}", numbers[key], "give a number above 0")


def _only(name: str, settings: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str]) -> None:
    for key in needed:
        if key not in settings:
            raise BadInput(f"{name}.{key}", None, f"add {key}")
    for key in settings:
        if key not in (*needed, *optional, "distribution"):
            raise BadInput(f"{name}.{key}", settings[key], "remove it, this distribution does not use it")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(name, value, checks.as_number(value) or "give a finite number")
    return value


def _multiple(step: int, q: float) -> float:
    """`step` times `q`, whole where `q` is, and without the dust of binary fractions."""
    return step * q if isinstance(q, int) else float(f"{step * q:.12g}")


def _at(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    place: Any = config
    for part in path:
        if not isinstance(place, Mapping) or part not in place:
            return _MISSING
        place = place[part]
    return place


def _field(path: tuple[str, ...]) -> str:
    return "parameters." + ".".join(path)
