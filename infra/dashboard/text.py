"""Numbers, times and nested values as people read them."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

NOTHING = "–"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
_STAMP = re.compile(r"(?:ERROR )?\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)(?:\.\d+)? ")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def number(value: object) -> float | None:
    """The value as a finite float; None for anything else (booleans, texts, NaN, infinity)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def plain(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits and no exponent where it can be had."""
    if value is None:
        return NOTHING
    if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    text = f"{value:.{min(decimals, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def score(value: float | None) -> str:
    """A metric with four decimals, so that a column of them lines up."""
    return f"{value:.4f}" if value is not None and abs(value) < 1000 else plain(value)


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction 0..1 in per cent."""
    return NOTHING if value is None else f"{100 * value:.{decimals}f} %"


def points(value: float | None) -> str:
    """A difference of two fractions, in percentage points."""
    return NOTHING if value is None else f"{100 * value + 0.0:.2f} pt"


def ratio(value: float | None) -> str:
    """A latency ratio: candidate to dense."""
    return NOTHING if value is None else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """The two ends of an interval, or nothing where one is unknown."""
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def milliseconds(value: float | None) -> str:
    """Milliseconds, three digits that count."""
    return NOTHING if value is None else f"{plain(value, 3)} ms"


def seconds(value: float | None) -> str:
    """A duration in its two largest units."""
    if value is None or value < 0:
        return NOTHING
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    for size, unit, part, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def amount(value: float | None, unit: str = "") -> str:
    """A large count with k, M or G."""
    if value is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{plain(value / size, 3)} {letter}{unit}"
    return f"{plain(value, 3)} {unit}".rstrip()


def iso(moment: datetime | None) -> str:
    """A moment for `<time datetime>`: UTC, to the second; empty for none."""
    if moment is None:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(moment: datetime | None) -> str:
    """A moment for people, before the page's script turns it into "12 s ago"."""
    return iso(moment).replace("T", " ").replace("Z", " UTC") or NOTHING


def console_line(line: str) -> str:
    """A console line without colours and other terminal control; the last state of a progress bar.

    The client stamps each line with date and time, and puts ERROR before all of stderr; what stays is the time.
    """
    stamp = _STAMP.match(line)
    rest = line[stamp.end() :] if stamp else line
    last = [part for part in rest.rstrip("\r\n").split("\r") if part] or [""]
    text = _CONTROL.sub("", _ESCAPES.sub("", last[-1]))
    return f"{stamp[1]}  {text}" if stamp else text


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mappings as dotted names with their values, in order."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def shown(value: object) -> str:
    """Any plain value of a config or summary in one cell."""
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return plain(value) if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    return str(value)
