"""`python -m infra.controller`: suggestions over pipes, one JSON document a line, until standard input ends.

A request is `{"id", "sweep": {"name", "config", "profile"}, "trials": [...], "count"}`; its answer `{"id",
"suggestions": [{"params", "config", "why"}], "exhausted": reason or null}`, or `{"id", "error", "input": whether the
sweep itself is at fault}`. The first line, `{"ready": true}`, comes once the libraries are loaded. No pickle.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TextIO

from infra.controller.base import Controller, Exhausted, StoredTrial, SweepSpec, suggest_many
from objective.errors import BadInput
from objective.profile import Profile


def controllers() -> Mapping[str, Controller]:
    """The search methods by the name that a sweep file gives them; loads torch, which takes seconds."""
    from infra.controller.bayes import BayesSearch
    from infra.controller.grid import GridSearch
    from infra.controller.random import RandomSearch

    return {"bayes": BayesSearch(), "grid": GridSearch(), "random": RandomSearch()}


def answer(request: Mapping[str, Any], methods: Mapping[str, Controller]) -> dict[str, Any]:
    """The answer to one request; an error of any kind becomes a line of text in it."""
    try:
        return {"id": request["id"], **_suggest(request, methods)}
    except BadInput as error:
        return {"id": request.get("id"), "error": str(error), "input": True}
    except Exception as error:  # one request must not end the process that serves all sweeps
        traceback.print_exc(file=sys.stderr)
        return {"id": request.get("id"), "error": f"{type(error).__name__}: {error}", "input": False}


def _suggest(request: Mapping[str, Any], methods: Mapping[str, Controller]) -> dict[str, Any]:
    described = request["sweep"]
    profile = None if described["profile"] is None else Profile.from_json(described["profile"])
    sweep = SweepSpec.from_config(described["name"], described["config"], profile)
    trials = [StoredTrial.from_json(trial) for trial in request["trials"]]
    answers = suggest_many(methods[sweep.method], sweep, trials, request["count"])
    reasons = [each.reason for each in answers if isinstance(each, Exhausted)]
    return {
        "suggestions": [asdict(each) for each in answers if not isinstance(each, Exhausted)],
        "exhausted": reasons[0] if reasons else None,
    }


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests in the order they come until there are no more."""
    methods = controllers()
    _send(answers, {"ready": True})
    for line in requests:
        _send(answers, answer(json.loads(line), methods))


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
