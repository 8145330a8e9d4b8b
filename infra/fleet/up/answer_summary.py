"""What `prunefleet up` tells at the end: the table of the trials, the answer in five lines, and both as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from prunefleet.infra.wandb_api import RemoteRun, RemoteSweep

Json = Mapping[str, Any]


def trials_table(view: RemoteSweep) -> Table:
    """A row per run, oldest first; narrow enough for 100 columns, the groups' names once below it."""
    groups = sorted({name for run in view.runs for name in kept_by(run)})
    # What all runs have in common needs no column.
    own = {"precision": _precision_of, "host": _host_of}
    several = {name: of for name, of in own.items() if len({of(run) for run in view.runs} - {""}) > 1}
    caption = f"kept: channels of {', '.join(groups)}" if groups else ""
    table = Table(title=f"Trials of {view.path}", title_justify="left", caption=caption, caption_justify="left")
    table.box = SIMPLE
    for name in ("run", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("score", "val", "drop", "latency ratio", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("kept", "why", *several):
        table.add_column(name)
    for run in view.runs:
        table.add_row(*_row(run, groups), *(of(run) for of in several.values()))
    return table


def kept_by(run: RemoteRun) -> Mapping[str, int]:
    """Kept channels by group; empty where the run never came so far."""
    kept = run.config.get("kept")
    return kept if isinstance(kept, Mapping) else {}


def _row(run: RemoteRun, groups: Sequence[str]) -> tuple[str, ...]:
    told, kept = run.summary, kept_by(run)
    return (
        run.name,
        run.outcome,
        _number(told.get("score"), "{:.4f}"),
        _number(told.get("score_terms", {}).get("metric"), "{:.2%}"),
        _number(told.get("metric_drop"), "{:+.2%}"),
        _measured(told),
        _number(told.get("latency_p50_ms"), "{:.3f}"),
        "·".join(str(kept.get(name, "–")) for name in groups) if kept else "",
        _why(told.get("why")),
    )


def _host_of(run: RemoteRun) -> str:
    return str(run.config.get("host") or "")


def _precision_of(run: RemoteRun) -> str:
    measure = run.config.get("measure")
    return str(measure.get("precision") or "") if isinstance(measure, Mapping) else ""


def _measured(told: Json) -> str:
    return interval(told, "latency_ratio") if told.get("latency_ratio") is not None else ""


def _why(why: object) -> str:
    return str(why.get("kind", "")) if isinstance(why, Mapping) else str(why or "")


def _number(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def channels(kept: object) -> str:
    """Kept channels by group in few letters."""
    return " ".join(f"{name}={count}" for name, count in sorted(kept.items())) if isinstance(kept, Mapping) else ""


def interval(row: Json, key: str, form: str = "{:.3f}") -> str:
    """A figure of `row` with its interval, as `0.312 [0.309, 0.316]`; a dash where it is not known."""
    value, ends = row.get(key), (row.get(f"{key}_lo"), row.get(f"{key}_hi"))
    if value is None:
        return "–"
    low, high = (form.format(end) if end is not None else "?" for end in ends)
    return f"{form.format(value)} [{low}, {high}]"


def answer_text(answer: Json) -> list[str]:
    """The best candidate, what it costs, the two dense networks, uniform pruning, and what the search gained."""
    winner, controls = answer["winner"], answer["controls"]
    if winner is None:
        return ["No trial came to a score; the table and the runs' logs say why."]
    lost = f"{'gains' if _below(winner, 'test_drop') else 'loses'} {_unsigned(winner, 'test_drop', '{:.2%}')}"
    return [
        f"Best: run {winner['run']}, {_precision(winner, controls)}keeps {_pruned(winner)}",
        f"  {_figures(winner)}, {lost}{_doubt(winner)}",
        f"Dense: at {controls['dense']['precision']} {_figures(controls['dense'])}; at the device's default, "
        f"{controls['dense_default']['precision']}, {_figures(controls['dense_default'])}",
        f"Uniform on the same grid: {_uniform(controls.get('uniform'), winner.get('metric', 'top1'))}",
        f"Search: {_gain(answer['hypervolume_gain'])}",
    ]


def _below(row: Json, key: str) -> bool:
    """Return whether a figure is below 0, so that another word says which way it goes."""
    return (row.get(key) or 0) < 0


def _unsigned(row: Json, key: str, form: str) -> str:
    """A figure with its interval, turned round where it is below 0."""
    if not _below(row, key):
        return interval(row, key, form)
    low, high = (None if row.get(end) is None else -row[end] for end in (f"{key}_hi", f"{key}_lo"))
    return interval({key: -row[key], f"{key}_lo": low, f"{key}_hi": high}, key, form)


def _doubt(winner: Json) -> str:
    return "" if winner.get("holdout_agrees", True) else "; by holdout alone it loses more than the limit"


def _precision(winner: Json, controls: Json) -> str:
    """Said where it is not that of the dense network beside it."""
    own = winner.get("precision")
    return f"at {own}, " if own and own != controls["dense"]["precision"] else ""


def _pruned(winner: Json) -> str:
    """Kept channels and pruning per group, as `stem 16 (-50%)`."""
    ratios = winner["ratios"]
    return ", ".join(f"{name} {count} (-{ratios.get(name, 0.0):.0%})" for name, count in sorted(winner["kept"].items()))


def _figures(row: Json) -> str:
    test = f"test {interval(row, 'test', '{:.2%}')}, " if row.get("test") is not None else ""
    return f"{test}latency {interval(row, 'latency_ratio')} of dense, {interval(row, 'latency_p10_ms')} ms"


def _uniform(uniform: Json | None, metric: str) -> str:
    """The control nearest in latency, and the winner against the line through all of them."""
    if uniform is None:
        return "there is no other aligned uniform candidate"
    equal, latency = uniform["equal_quality"], uniform["equal_latency"]
    direction = "more" if _below(equal, "saved") else "less"
    quality = "accuracy" if metric.startswith("top") else metric
    return (
        f"nearest in latency keeps {channels(uniform['kept'])}, {_figures(uniform)}; the best takes "
        f"{_unsigned(equal, 'saved', '{:.1%}')} {direction} latency at equal {quality}, and has "
        f"{interval(latency, 'gain', '{:+.2%}')} {quality} at equal latency"
    )


def _gain(gain: Json) -> str:
    return (
        f"hypervolume {gain['warm']:.5f} after the warm points, {gain['all']:.5f} after all trials "
        f"(gain {gain['gain']:.5f}, {gain['gain'] / max(gain['warm'], 1e-9):.1%})"
    )


def document(view: RemoteSweep, agents: int, seconds: Json, answer: Json) -> dict[str, Any]:
    """The answer file: the sweep, how its runs ended, time per phase, winner, controls, and the trials themselves."""
    trials = [
        {"run": run.name, "outcome": run.outcome, "host": run.config.get("host"), "score": run.summary.get("score")}
        for run in view.runs
    ]
    head = {"sweep": view.path, "agents": agents, "outcomes": view.outcomes(), "seconds": dict(seconds)}
    return {**head, **answer, "trials": trials}
