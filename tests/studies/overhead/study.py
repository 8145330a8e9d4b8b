"""The demo's task for a bench of what trials cost besides their work, and the page of what was found."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunefleet.agent.tasks.ready.fashion_mnist import FashionMNIST
from prunefleet.agent.tasks.task import Budget

from support.measure import machine
from support.paths import RESULTS

WORK = ("recalibrate", "train", "evaluate", "quantise", "measure")
"""Stages that are training, evaluation or measurement."""
HEAD = """\
# What a trial costs besides its work

`make bench-overhead` on {machine}; raw data: [overhead.json](overhead.json).
The demo's sweep with a dense network that was hardly trained, for cost does not depend on weights; {agents} agents of
one thread, {n} scored trials. A trial lasts from the moment the hub hands it out until the hub has its end. Work is
what it trains, evaluates and measures (stages {work}; waiting for another trial's
measurement is part of measuring). The rest is overhead: bar 10 % of all that the trials lasted.

"""


class Brief(FashionMNIST):
    """The demonstration task, its dense network hardly trained."""

    name = "fashion_mnist_brief"

    def dense_budget(self) -> Budget:
        """Some fifty steps."""
        return Budget(epochs=0.06, lr=0.1)


def costs(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each scored run (agent, issued, opened, finished, summary) its seconds, and those that are overhead by stage.

    A trial that was skipped, which is there to do no work, is left out.
    """
    found: list[dict[str, Any]] = []
    for run in runs:
        if run["summary"]["outcome"] != "scored":
            continue
        stages = {key[8:]: value for key, value in run["summary"].items() if key.startswith("seconds_")}
        total, work = run["finished"] - run["issued"], sum(stages.get(stage, 0.0) for stage in WORK)
        rest = {stage: seconds for stage, seconds in stages.items() if stage not in WORK}
        rest |= {"opening": run["opened"] - run["issued"]}
        rest["unnamed"] = total - work - sum(rest.values())
        first = not any(each["agent"] == run["agent"] for each in found)
        found.append(
            {"agent": run["agent"], "first": first, "seconds": total, "share": 1 - work / total, "overhead": rest}
        )
    return found


def share(found: Sequence[Mapping[str, Any]]) -> float:
    """Overhead of all these trials, of what they lasted together."""
    return float(sum(each["share"] * each["seconds"] for each in found) / sum(each["seconds"] for each in found))


def keep(found: list[dict[str, Any]], really: bool = True) -> None:
    """Print the page, and put it and the raw data into the results unless this was only a trial of the bench."""
    on = machine()
    print("\n" + page(found, on))
    if really:
        (RESULTS / "overhead.json").write_text(json.dumps({"machine": on, "trials": found}, indent=1) + "\n")
        (RESULTS / "overhead.md").write_text(page(found, on))


def page(found: list[dict[str, Any]], on: Mapping[str, Any]) -> str:
    """The page for these trials."""
    where = f"{on['cores']} × {on['cpu']}, {on['system']}, Python {on['python']}"
    agents = len({each["agent"] for each in found})
    head = HEAD.format(machine=where, agents=agents, n=len(found), work=", ".join(WORK))
    parts = {"all": found, "first of its agent": [each for each in found if each["first"]]}
    parts["further"] = [each for each in found if not each["first"]]
    rows = "\n".join(_row(name, part) for name, part in parts.items() if part)
    names = sorted({name for each in found for name in each["overhead"]})
    seconds = {name: [each["overhead"].get(name, 0.0) for each in parts["further"] or found] for name in names}
    ordered = sorted(names, key=lambda name: -float(np.median(seconds[name])))
    stages = "\n".join(f"| {name} | {np.median(seconds[name]):.2f} | {max(seconds[name]):.2f} |" for name in ordered)
    return f"""{head}| trials | n | median s | overhead of all | median | worst |
|---|---|---|---|---|---|
{rows}

Where it goes in further trials, seconds (opening: until the hub hears of the process; unnamed: outside all stages):

| stage | median | worst |
|---|---|---|
{stages}
"""


def _row(name: str, found: Sequence[Mapping[str, Any]]) -> str:
    shares, seconds = [each["share"] for each in found], float(np.median([each["seconds"] for each in found]))
    middle = f"{share(found):.1%} | {np.median(shares):.1%} | {max(shares):.1%}"
    return f"| {name} | {len(found)} | {seconds:.1f} | {middle} |"
