"""`prunefleet doctor`: what on this host, or on the way to its server, makes trials fail or figures wrong."""

import json
from collections.abc import Iterator

from prunefleet.agent.health.finding import OK, PROBLEM, Finding
from prunefleet.agent.health.host import host
from prunefleet.agent.health.reference_network import reference
from prunefleet.agent.health.runner_checks import devices
from prunefleet.agent.health.sweep import sweep as sweep_findings
from prunefleet.agent.health.wandb_server import server

HEALTHY, UNWELL = 0, 1


def doctor(sweep: str | None, as_json: bool) -> int:
    """Print each finding as it is found, or all as JSON; returns 1 where one of them is a problem.

    `sweep`, entity/project/id, is looked at too where it is given. Nothing is changed.
    """
    found = []
    for finding in findings(sweep):
        found.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps({"version": 1, "findings": [each.to_json() for each in found]}, indent=1))
    return UNWELL if any(each.level == PROBLEM for each in found) else HEALTHY


def findings(sweep: str | None) -> Iterator[Finding]:
    """The host first, then what runs networks on it, then the server and the sweep there."""
    yield from host()
    yield from devices()
    yield from reference()
    reached = False
    for finding in server():
        reached = reached or (finding.name, finding.level) == ("server", OK)
        yield finding
    if sweep and reached:
        yield from sweep_findings(sweep)
    elif sweep:
        yield Finding("sweep", PROBLEM, f"{sweep} was not looked at", "mend what is said of the server first")
