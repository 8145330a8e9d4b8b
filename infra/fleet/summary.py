"""What `prunefleet up` tells at the end: the table of the trials, the answer in five lines, and both as JSON."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from infra.remote import RunView, SweepView

Json = Mapping[str, Any]


def trials_table(view: SweepView) -> Table:
    """A row per run, oldest first."""
    table = Table(title=f"Trials of {view.path}", title_justify="left")
    for name in ("run", "outcome", "score", "val", "drop", "latency ratio", "ms", "kept channels", "host", "why"):
        table.add_column(name, justify="right" if name in ("score", "val", "drop", "ms") else "left")
    for run in view.runs:
        table.add_row(*_row(run))
    return table


def _row(run: RunView) -> tuple[str, ...]:
    told = run.summary
    metric = next((key for key in told if key.startswith("val_") and key.count("_") == 1), "")
    return (
        run.name,
        run.outcome,
        _number(told.get("score"), "{:.4f}"),
        _number(told.get(metric), "{:.2%}"),
        _number(told.get("metric_drop"), "{:+.2%}"),
        _measured(told),
        _number(told.get("latency_p50_ms"), "{:.3f}"),
        channels(run.config.get("kept", {})),
        str(run.config.get("host", "")),
        _why(told.get("why")),
    )


def _measured(told: Json) -> str:
    ratio, low, high = (told.get(key) for key in ("latency_ratio", "latency_ratio_lo", "latency_ratio_hi"))
    return interval({"value": ratio, "lo": low, "hi": high}) if ratio is not None else ""


def _why(why: object) -> str:
    return str(why.get("kind", "")) if isinstance(why, Mapping) else str(why or "")


def _number(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def channels(kept: object) -> str:
    """Kept channels by group in few letters."""
    return " ".join(f"{name}={count}" for name, count in kept.items()) if isinstance(kept, Mapping) else ""


def interval(figure: Json | None, form: str = "{:.3f}") -> str:
    """A figure with its interval, as `0.312 [0.309, 0.316]`; a dash where it is not known."""
    if figure is None:
        return "–"
    return f"{form.format(figure['value'])} [{form.format(figure['lo'])}, {form.format(figure['hi'])}]"


def answer_text(answer: Json) -> list[str]:
    """The best candidate, the two dense networks, uniform pruning, and where the files are: one line each."""
    winner, controls, metric = answer["winner"], answer["controls"], answer["metric"]
    dense, default, uniform = (controls[key] for key in ("dense", "dense_default", "uniform"))
    kept = " ".join(f"{name} {count}/{winner['widths'][name]}" for name, count in winner["kept"].items())
    pruned = " ".join(f"{name} -{ratio:.0%}" for name, ratio in winner["ratios"].items())
    lost = interval(winner["test_drop"], "{:+.2%}")
    return [
        f"Best: run {winner['run']}, {pruned}; kept {kept}",
        f"  {_figures(winner, metric)}, loses {lost} on test",
        f"Dense at {dense['precision']}: {_figures(dense, metric)}; "
        f"at the device's default, {default['precision']}: {_figures(default, metric)}",
        f"Uniform on the same grid nearest in latency, kept {channels(uniform['kept'])}: {_figures(uniform, metric)}",
        f"  {_against_uniform(uniform['at_equal_accuracy'])}; {_gain(answer['hypervolume_gain'])}",
        f"Files of the best: {winner['files']} (artifact {winner['artifact']})",
    ]


def _figures(row: Json, metric: str) -> str:
    test = f"{metric} {interval(row['test'], '{:.2%}')} on test, " if row.get("test") else ""
    return f"{test}latency {interval(row['latency_ratio'])} of dense, {interval(row['latency_ms'])} ms"


def _against_uniform(equal: Json) -> str:
    if equal.get("saving") is None:
        return f"at equal accuracy: {equal.get('note', 'not known')}"
    return f"at equal accuracy the best takes {interval(equal['saving'], '{:.1%}')} less latency than uniform"


def _gain(gain: Json) -> str:
    return f"the search took the hypervolume from {gain['warm']:.5f} (warm points) to {gain['all']:.5f}"


def document(view: SweepView, agents: int, seconds: Json, answer: Json) -> dict[str, Any]:
    """The answer file: the sweep, how its runs ended, time per phase, winner, controls, and the trials themselves."""
    trials = [
        {"run": run.name, "outcome": run.outcome, "host": run.config.get("host"), "score": run.summary.get("score")}
        for run in view.runs
    ]
    head = {"sweep": view.path, "agents": agents, "outcomes": view.outcomes(), "seconds": dict(seconds)}
    return {**head, **answer, "trials": trials}
