"""`python -m prunefleet.infra.controller`: suggestions over pipes, one JSON document a line, until standard input ends.

A request is `{"id", "sweep": {"name", "config", "profile"}, "trials": [...], "count"}`; its answer `{"id",
"suggestions": [{"params", "config", "why", "repeat"}], "exhausted": reason or null, "recommended": {"trial",
"expected"} or null, "note"}`, or `{"id", "error"}` when the sweep itself is at fault. A note is one line on why a
suggestion is not as good as it could be. No pickle.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec, suggest_many
from prunefleet.infra.controller.engines.random import RandomSearch
from prunefleet.infra.controller.engines.registry import controller
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.sweepfile import DEFAULT_ENGINE

# What a run's summary calls them, the last two for each of several devices.
SUMMARY = {"drop": "metric_drop", "baseline_ms": "baseline_p50_ms"}
SUMMARY |= {"latency_ratios": "latency_ratio", "baselines_ms": "baseline_p50_ms"}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one request; bad input becomes a line of text, a failing model a random draw with a note."""
    try:
        sweep, note = _sweep(request["sweep"])
        trials = [StoredTrial.from_json(trial) for trial in request["trials"]]
        found = _suggest(sweep, trials, request["count"])
        return {**found, "id": request["id"], "note": "; ".join(filter(None, (note, found["note"]))) or None}
    except BadInput as error:
        return {"id": request["id"], "error": str(error)}


def _sweep(described: Mapping[str, Any]) -> tuple[SweepSpec, str | None]:
    """The sweep, with its profile if that fits; without it the search goes on, knowing less."""
    name, config = described["name"], described["config"]
    try:
        profile = None if described["profile"] is None else Profile.from_json(described["profile"])
        return SweepSpec.from_config(name, config, profile), None
    except BadInput as error:
        # Whether the profile or the sweep is at fault shows when the profile is left out.
        return SweepSpec.from_config(name, config), f"{error}; the search goes on without a profile"


def _suggest(sweep: SweepSpec, trials: Sequence[StoredTrial], count: int) -> dict[str, Any]:
    try:
        found = _document(suggest_many(controller(sweep.method, sweep.engine), sweep, trials, count))
        return {**found, "recommended": _recommended(sweep, trials), "note": _note(sweep, trials)}
    except BadInput:
        raise
    except Exception as error:  # the sweep goes on where it can: a random draw is better than idle agents
        traceback.print_exc(file=sys.stderr)
        note = f"the {sweep.method} search failed ({type(error).__name__}: {error}), so this run is a random draw"
        found = _document(suggest_many(RandomSearch(), sweep, trials, count))
        return {**found, "recommended": None, "note": " ".join(note.split())}


def _note(sweep: SweepSpec, trials: Sequence[StoredTrial]) -> str | None:
    """What of the sweep is not made use of, in one line."""
    if sweep.method != "bayes":
        return None
    if sweep.profile is not None and "ratio" not in sweep.parameters:
        return "parameters: no block is called ratio; the search goes on without the profile, on the metric alone"
    lost = [trial for trial in trials if trial.answered and trial.unread]
    if not lost:
        return None
    fields = ", ".join(map(_in_summary, lost[-1].unread))
    others = f" ({len(lost)} runs in all)" if len(lost) > 1 else ""
    return f"run {lost[-1].name}: its {fields} is no finite number, so the search learns nothing from that{others}"


def _in_summary(name: str) -> str:
    """What a run's summary calls a number of a trial."""
    field, _, device = name.partition(".")
    return f"devices.{device}.{SUMMARY[field]}" if device else SUMMARY.get(field, field)


def _recommended(sweep: SweepSpec, trials: Sequence[StoredTrial]) -> dict[str, Any] | None:
    """The trial that the models expect most of, where there are models and a trial that was scored."""
    if sweep.method != "bayes" or sweep.engine != DEFAULT_ENGINE or sweep.profile is None or sweep.goal is None:
        return None
    from prunefleet.infra.controller.pruning.engine import recommend
    from prunefleet.infra.controller.threads import one_thread

    with one_thread():
        found = recommend(sweep, sweep.profile, sweep.goal, trials, sweep.seed(len(trials)))
    return None if found is None else {"trial": found.trial, "expected": {**found.why, "score": found.score}}


def _document(answers: Sequence[Suggestion | Exhausted]) -> dict[str, Any]:
    reasons = [each.reason for each in answers if isinstance(each, Exhausted)]
    return {
        "suggestions": [asdict(each) for each in answers if isinstance(each, Suggestion)],
        "exhausted": reasons[0] if reasons else None,
    }


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests in the order they come until there are no more."""
    for line in requests:
        if not line.endswith("\n"):
            return  # the hub was killed while it asked
        _send(answers, answer(json.loads(line)))


def _send(answers: TextIO, document: Mapping[str, Any]) -> None:
    answers.write(json.dumps(document) + "\n")
    answers.flush()


def main() -> int:
    """Serve standard input; whatever a library prints goes to standard error, so that it cannot spoil an answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(sys.stdin, answers)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
