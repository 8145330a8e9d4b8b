"""Keeps an agent on a machine of the storm, as its service manager would: `… studies.storm.keep.py FOLDER SWEEP`."""

import os
import sys
import time
from pathlib import Path

from prunefleet.infra.fleet.supervision import lost
from prunefleet.infra.fleet.supervision.process import Impatience
from prunefleet.infra.fleet.supervision.supervise import Agent, Supervisor
from prunefleet.objective.host_outcomes import VARIABLE as OUTCOMES

TICK_S = 0.5


def main() -> None:
    """Supervise until asked to stop."""
    folder, sweep = Path(sys.argv[1]), sys.argv[2]
    outcomes = folder / "outcomes.jsonl"
    lost.tell(os.environ, sweep, lost.left_behind(folder))
    impatient = Impatience()
    impatient.install()
    agent = Agent(1, sweep, {**os.environ, OUTCOMES: str(outcomes)}, folder, folder)
    supervisor = Supervisor([agent], outcomes, lambda text: print(text, flush=True))
    while not impatient.asked():
        supervisor.tend()
        time.sleep(TICK_S)
    supervisor.stop(impatient)


if __name__ == "__main__":
    main()
