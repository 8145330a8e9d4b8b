"""The answer of one sweep: its winner and the controls, evaluated on test and measured once more in one session."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunefleet.agent.answer.controls import Evaluated, Point, against_uniform, latency_of
from prunefleet.agent.answer.networks import DEFAULT, SESSION_S, WINNER, Networks, Sessions, slowest
from prunefleet.agent.answer.uniform import key_of, uniform_controls
from prunefleet.agent.answer.winner import choose, gain, published
from prunefleet.agent.host.cache_files import bundle_folder
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import DENSE, MeasurementSession
from prunefleet.agent.tasks.task import interval_by
from prunefleet.agent.tracking.tracked_run import Reader, RunRecord
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.request import Request
from prunefleet.objective.goals.stats import OfMeans
from prunefleet.objective.profiles.profile import Profile

PARTS = 5
Report = Callable[[int, str], None]
"""Called with the number of parts done, of `PARTS`, and what was done last."""


@dataclass(frozen=True)
class Answer:
    """The answer of a sweep: the `document` of plain values, and what is noted of it on the server.

    `winner` is the id of the winning run and `test` its test metric; None and 0 where no run has a score. `rounds` are
    those of the measurement session.
    """

    document: Mapping[str, Any]
    winner: str | None = None
    test: float = 0.0
    controls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rounds: int = 0


def find_answer(
    reader: Reader, request: Request, context: TrialContext, watch: StageWatch, folder: Path, report: Report
) -> Answer:
    """Find the winner among the sweep's scored runs, and measure it beside its controls; files go to `folder`."""
    networks = Networks(reader, request, context, watch, folder)
    scored = [run for run in reader.runs() if run.summary.get("outcome") == "scored"]
    if not scored:
        return Answer({"winner": None, "controls": {}, "hypervolume_gain": {"warm": 0.0, "all": 0.0, "gain": 0.0}})
    report(1, f"{len(scored)} scored runs")
    chosen, agrees = choose(scored, request.goal, context.baseline.metrics["holdout"][networks.metric])
    # A sweep may search the precision too: all is evaluated and measured at the winner's.
    networks = networks.at(chosen.config.get("measure", {}).get("precision", context.precision))
    winner, dense = networks.of_run(chosen), networks.dense()
    report(2, f"winner {chosen.name}, test {networks.metric} {winner.metric:.4f}, dense {dense.metric:.4f}")
    if winner.on_test is None:
        report(2, interval_by(networks.context.task, networks.metric))
    uniform = uniform_controls(networks, winner, scored, lambda text: report(3, text))
    report(4, f"{len(uniform)} uniform controls evaluated")
    sessions = networks.measured({WINNER: winner, **{key_of(each.kept): each for each in uniform}}, SESSION_S)
    session = slowest(sessions)
    controls = _controls(networks.context.precision, winner, dense, uniform, session)
    controls[DEFAULT] |= networks.default_quality(dense)
    rounds = len(session.slots[DENSE])
    document = {
        "winner": {
            **_winner(networks, chosen),
            "holdout_agrees": agrees,
            **{key: chosen.summary.get(key) for key in ("score", "params", "macs", "size_bytes")},
            **winner.quality(),
            **winner.drop_from(dense),
            **latency_of(session, WINNER),
            **_on_each(sessions),
        },
        "controls": controls,
        "hypervolume_gain": gain(scored, _warm(networks)),
        "sitting": {"rounds": rounds, "device": session.latencies[WINNER].device.to_json()},
    }
    return Answer(document, chosen.name, winner.metric, controls, rounds)


def _winner(networks: Networks, chosen: RunRecord) -> dict[str, Any]:
    """Return what the winning run was, and where its files are."""
    return {
        "run": chosen.name,
        **_files(networks, chosen),
        "precision": networks.context.precision,
        "ratios": dict(chosen.config.get("ratio", {})),
        "kept": dict(chosen.config["kept"]),
        "metric": networks.metric,
        "val": chosen.summary[f"val_{networks.metric}"],
        "holdout": chosen.summary[f"holdout_{networks.metric}"],
    }


def _files(networks: Networks, chosen: RunRecord) -> dict[str, str | None]:
    """Return where the winner's files are: in the project, or on this host if they may not leave it."""
    if networks.request.upload == "metrics":
        return {"artifact": None, "files": str(bundle_folder(chosen.name))}
    return {"artifact": f"{networks.reader.project}/{published(chosen)}"}


def _on_each(sessions: Sessions) -> dict[str, Any]:
    """Return the winner's latency on each device, where there are several."""
    each = {name: latency_of(session, WINNER) for name, session in sessions.items()}
    return {"devices": each} if len(each) > 1 else {}


def _controls(
    precision: str, winner: Evaluated, dense: Evaluated, uniform: Sequence[Evaluated], session: MeasurementSession
) -> dict[str, dict[str, Any]]:
    """Return the dense network at both precisions, and the nearest uniform one with the line through all of them."""
    own = session.latencies[WINNER].ratio
    computed = {name: session.latencies[name].precision for name in (DENSE, DEFAULT)}
    controls: dict[str, dict[str, Any]] = {
        DENSE: {"precision": computed[DENSE], **dense.quality(), **latency_of(session, DENSE)},
        DEFAULT: {"precision": computed[DEFAULT], **latency_of(session, DEFAULT)},
    }
    if not uniform:
        return controls
    nearest = min(uniform, key=lambda each: abs(session.latencies[key_of(each.kept)].ratio - own))
    controls["uniform"] = {
        "precision": precision,
        "kept": dict(nearest.kept),
        **nearest.quality(),
        **nearest.drop_from(dense),
        **latency_of(session, key_of(nearest.kept)),
        **against_uniform(
            _point(winner, session, WINNER),
            [_point(each, session, key_of(each.kept)) for each in uniform],
            _point(dense, session, DENSE),
        ),
        "line": [
            {"kept": dict(each.kept), "test": each.metric, **latency_of(session, key_of(each.kept))} for each in uniform
        ],
    }
    return controls


def _point(evaluated: Evaluated, session: MeasurementSession, name: str) -> Point:
    return Point(evaluated.on_test or OfMeans([evaluated.metric]), session.slots[name])


def _warm(networks: Networks) -> list[dict[str, int]]:
    """Return kept channels of the profile's warm points; none where the sweep has no profile."""
    name, folder = networks.request.profile, networks.folder / "profile"
    if name is None or not networks.reader.fetch(name, folder):
        return []
    profile = Profile.load(folder / "profile.json")
    return [networks.context.space.kept(ratios) for ratios in profile.warm]
