"""What of each network of the zoo can be pruned, and how long the proof takes: one network, and the page of all.

`python -m studies.zoo.study NAME` prints what is found of one network as a line of JSON.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from support.measure import machine
from support.paths import RESULTS

LIMIT = 240
"""Processor seconds that one network may take."""
LAST = "it makes the network's output"
HEAD = """\
# What of each network can be pruned

`make bench-zoo` on {machine}, one thread, one network at a time, beside other work (load
average {load}); raw data: [zoo.json](zoo.json). Weights are random, norms as if they were trained, n = 1. A group is
proven by *silence* or by *influence* ([pruning](../pruning.md#how-a-group-is-proven)). The share is of the
multiply-accumulates of one forward pass: what is gone where every group keeps as little as it can. Seconds are the
processor's, for finding and proving all groups: on a machine with nothing else to do they are those of a clock. Trials
do not repeat them.

| network | input | groups | by silence | by influence | prunable share | layers whole | s |
|---|---|---|---|---|---|---|---|
"""
WHOLE = """
Layers that make the network's output are whole everywhere. So are:

| network | layers | first of them | reason |
|---|---|---|---|
"""


def measured(name: str) -> dict[str, Any]:
    """What is found of one network."""
    import torch

    from prunefleet.agent.compress.groups import survey

    from support.zoo import ZOO, dense, prunable_share

    torch.set_num_threads(1)
    network, image = dense(name)
    began = time.process_time()
    found = survey(network, image)
    seconds = time.process_time() - began
    whole: dict[str, list[str]] = defaultdict(list)
    for layer, reason in found.whole.items():
        whole[reason].append(layer)
    return {
        "name": name,
        "side": ZOO[name],
        "groups": len(found.groups),
        "silence": sum(group.proof == "silence" for group in found.groups),
        "share": prunable_share(network, image, found.groups),
        "whole": whole,
        "seconds": seconds,
        "load": os.getloadavg()[0],
        "on": machine(),
    }


def keep(found: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> None:
    """Write the page and the raw data of what was found of the networks `names`."""
    (RESULTS / "zoo.json").write_text(json.dumps(list(found.values()), indent=1) + "\n")
    missing = [name for name in names if name not in found]
    (RESULTS / "zoo.md").write_text(page(found) + (f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""))


def kept() -> dict[str, dict[str, Any]]:
    """What was measured before, by network."""
    path = RESULTS / "zoo.json"
    return {each["name"]: each for each in json.loads(path.read_text())} if path.exists() else {}


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of these networks; one that took too long has only `limit`, in seconds."""
    done = [each for each in found.values() if "limit" not in each]
    loads = sorted(each["load"] for each in done)
    on = {"{cores} × {cpu}, {system}, Python {python}".format_map(each["on"]) for each in done}
    text = HEAD.format(machine=" and ".join(sorted(on)), load=_range(loads))
    return text + "".join(map(_row, found.values())) + WHOLE + "".join(map(_reasons, done))


def _range(values: list[float]) -> str:
    return f"{values[0]:.1f} to {values[-1]:.1f}" if values else "unknown"


def _row(each: Mapping[str, Any]) -> str:
    if "limit" in each:
        return f"| {each['name']} | {each['side']} | | | | | | not ended after {each['limit']} |\n"
    layers = sum(len(names) for names in each["whole"].values())
    influence = each["groups"] - each["silence"]
    cells = (
        f"{each['groups']} | {each['silence']} | {influence} | {each['share']:.1%} | {layers} | {each['seconds']:.0f}"
    )
    return f"| {each['name']} | {each['side']} | {cells} |\n"


def _reasons(each: Mapping[str, Any]) -> str:
    rows = [(names, reason) for reason, names in each["whole"].items() if reason != LAST]
    return "".join(f"| {each['name']} | {len(names)} | `{names[0]}` | {reason} |\n" for names, reason in rows)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))  # then the kernel ends it
    print(json.dumps(measured(sys.argv[1])), flush=True)
