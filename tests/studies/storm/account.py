"""The account of a fleet's sweep: every trial and every measurement once, and when each machine measured."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prunefleet.infra.hub.upkeep.damage import check

from studies.storm.edge import FILE
from studies.storm.fleet import DEVICES, TRIALS, Fleet

OUTCOMES = {"scored", "skipped"}
RETRIES = 2
RUNS = """SELECT run.name, run.state, run.retries, run.config, run.summary, run.args, run.finished_at, agent.host
          FROM run JOIN sweep ON sweep.id = run.sweep_id LEFT JOIN agent ON agent.id = run.agent_id
          WHERE sweep.name = ? ORDER BY run.id"""
ARTIFACTS = """SELECT collection.name, COUNT(*) FROM artifact JOIN collection ON collection.id = collection_id
               WHERE artifact.state = 'COMMITTED' GROUP BY 1"""


@dataclass(frozen=True)
class Run:
    """A run as the hub has it on its disk."""

    name: str
    state: str
    retries: int
    host: str
    finished_at: float | None
    args: Mapping[str, Any]
    summary: Mapping[str, Any]


def runs(fleet: Fleet, sweep: str) -> list[Run]:
    """The runs of a sweep at entity/project/id, oldest first."""
    with fleet.database() as found:
        rows = found.execute(RUNS, (sweep.rpartition("/")[2],)).fetchall()
    return [
        Run(
            row["name"],
            row["state"],
            row["retries"],
            row["host"] or "",
            row["finished_at"],
            json.loads(row["args"] or "{}"),
            json.loads(row["summary"] or "{}"),
        )
        for row in rows
    ]


def at_rest(fleet: Fleet) -> bool:
    """Whether every run of every sweep has ended."""
    with fleet.database() as found:
        open_ones = "SELECT COUNT(*) FROM run WHERE state IN ('pending', 'running', 'preempting', 'preempted')"
        return not found.execute(open_ones).fetchone()[0]


def assert_exact(fleet: Fleet, trials: int) -> dict[str, Any]:
    """Every trial has ended once with one answer, every request was answered once; what was counted."""
    report = check(fleet.data)
    assert not report.problems, report.lines
    done = runs(fleet, fleet.queues[TRIALS[0]])
    assert len(done) == trials, Counter(run.state for run in done)
    told = [(run.name, run.state, run.retries, run.summary.get("failure_message")) for run in done]
    gave_up = [run for run in done if exhausted(run)]
    assert {run.state for run in done if run not in gave_up} == {"finished"}, told
    assert {run.summary.get("outcome") for run in done if run not in gave_up} <= OUTCOMES, told
    artifacts = _artifacts(fleet)
    answers = [run for run in done if run not in gave_up]
    for run in answers:
        if run.summary["outcome"] == "scored":
            assert artifacts[f"candidate-{run.name}"] >= 1, run.name
            assert run.summary.get("failure_kind") is None and isinstance(run.summary["score"], float), run
    answered = {device: _answered(fleet, device, artifacts) for device in dict.fromkeys(DEVICES.values())}
    for run in answers:
        for device, figures in run.summary["devices"].items():
            ratios = [each["ratio"] for each in answered[device].values() if each]
            assert figures["latency_ratio"] in ratios, f"{run.name}: {device} never said {figures['latency_ratio']}"
    return {
        "again": sum(run.retries for path in set(fleet.queues.values()) for run in runs(fleet, path)),
        "gave_up": len(gave_up),
        "measured": {device: len(found) for device, found in answered.items()},
    }


def exhausted(run: Run) -> bool:
    """Whether hosts failed under a run as often as it may be tried: that ends it too, and is told."""
    return (run.state, run.summary.get("outcome"), run.retries) == ("failed", "kept_failing", RETRIES)


def _answered(fleet: Fleet, device: str, artifacts: Mapping[str, int]) -> dict[str, dict[str, Any] | None]:
    """What a device said to each request, by the request's key; each was answered by one run."""
    label = next(label for label, name in DEVICES.items() if name == device)
    by_key = defaultdict(list)
    for run in runs(fleet, fleet.queues[label]):
        assert run.state == "finished" or exhausted(run), (device, run.name, run.state, run.retries, run.summary)
        by_key[run.args["key"]].append(run)
    found: dict[str, dict[str, Any] | None] = {}
    for key, asked in by_key.items():
        answers = [run for run in asked if "answer" in run.summary]
        lost = [run for run in asked if exhausted(run)]
        others = {run.summary.get("duplicate_of") for run in asked if run not in (*answers, *lost)}
        assert len(answers) == 1 or lost == asked, (device, key, [(run.name, run.summary) for run in asked])
        assert others <= {run.name for run in asked}, (device, key, others)
        if not answers:
            continue
        latencies = answers[0].summary["answer"]["latencies"]
        found[key] = latencies[1] if latencies else None
        # A board that fails between its samples and its answer leaves a version of them behind.
        versions, attempts = artifacts[f"samples-{answers[0].name}"], 1 + answers[0].retries
        assert (1 <= versions <= attempts) if latencies else versions == 0, (answers[0].name, versions, attempts)
    return found


def _artifacts(fleet: Fleet) -> Counter[str]:
    """How many versions there are of each artifact."""
    with fleet.database() as found:
        return Counter(dict(found.execute(ARTIFACTS).fetchall()))


@dataclass(frozen=True)
class Sitting:
    """When a process ran networks on a machine: seconds of the clock that all have in common."""

    process: int
    run: str
    begin: float
    end: float


def sittings(fleet: Fleet, label: str) -> list[Sitting]:
    """What a machine measured, by its own record, in the order of beginning."""
    path = fleet.machines[label].home / FILE
    spans: dict[tuple[int, str], tuple[float, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        pid, run, begin, end = line.split()
        first, last = spans.get((int(pid), run), (float(begin), float(end)))
        spans[int(pid), run] = min(first, float(begin)), max(last, float(end))
    return sorted((Sitting(pid, run, *span) for (pid, run), span in spans.items()), key=lambda each: each.begin)


def assert_apart(fleet: Fleet) -> int:
    """No machine ran two measurements at once; how many there were."""
    count = 0
    for label in DEVICES:
        found = sittings(fleet, label)
        count += len(found)
        for before, after in pairwise(found):
            assert before.end <= after.begin, (label, before, after)
    return count
