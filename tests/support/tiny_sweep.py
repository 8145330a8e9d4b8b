"""A sweep of real trials on the task that is as small as one can be, for real agents."""

import sys

SWEEP = """
program: prunefleet
command: ["${env}", %r, "-m", "prunefleet.agent", trial]
method: grid
metric: {name: score, goal: maximize}
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, max_drop: {value: 0.5}}}
  recipe: {parameters: {epochs: {value: 0.5}}}
  ratio: {parameters: {conv1: {values: %s}}}
"""


def tiny_sweep(ratios: str) -> str:
    """A grid of the first layer's `ratios`, a YAML list; tests must be on the path of the agent."""
    return SWEEP % (sys.executable, ratios)
