"""Rows of a small sweep, as the hub hands them out: a dense trial, two uniform ones, and what a search tried then."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from prunefleet.infra.hub.store.rows import AgentRow, RunRow, RunState, SweepRow, SweepState

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WIDTHS = {"stem": 32, "stage1_conv": 64, "stage2_conv": 128}
SWEEP_YAML = """\
name: fashion-mnist-demo
program: prunefleet
command: ["${env}", prunefleet, trial]
method: bayes
metric: {name: score, goal: maximize}
run_cap: 20
parameters:
  task: {value: fashion_mnist}
  objective:
    parameters:
      kind: {value: fastest}
      metric: {value: top1}
      max_drop: {value: 0.01}
  measure:
    parameters:
      device: {value: local}
      precision: {value: f32}
  ratio:
    parameters:
      stem: {values: [0.0, 0.5]}
      stage1_conv: {values: [0.0, 0.25, 0.5, 0.75]}
      stage2_conv: {values: [0.0, 0.25, 0.5, 0.75]}
"""
GENERIC_YAML = """\
method: random
metric: {name: loss, goal: minimize}
parameters:
  lr: {min: 0.001, max: 0.1}
  optimizer: {values: [sgd, adam]}
  depth: {value: 3}
"""


def sweep_row(text: str = SWEEP_YAML, **changes: Any) -> SweepRow:
    """A sweep of that file."""
    values: dict[str, Any] = {
        "id": 1,
        "name": "sweep001",
        "entity": "local",
        "project": "demo",
        "config": yaml.safe_load(text),
        "config_yaml": text,
        "state": SweepState.RUNNING,
        "display_name": None,
        "description": None,
        "created_at": START,
        "updated_at": START,
        "user": "local",
    }
    return SweepRow(**{**values, **changes})


def run_row(number: int, **changes: Any) -> RunRow:
    """The `number`-th run of the sweep, finished after 40 s unless told otherwise."""
    began = START + timedelta(seconds=60 * number)
    values: dict[str, Any] = {
        "id": number,
        "name": f"run{number:03d}",
        "entity": "local",
        "project": "demo",
        "sweep": "sweep001",
        "agent": "agent-a",
        "state": RunState.FINISHED,
        "display_name": f"calm-river-{number}",
        "config": {},
        "summary": {},
        "host": "workbench",
        "created_at": began,
        "started_at": began,
        "heartbeat_at": began,
        "finished_at": began + timedelta(seconds=40),
        "exit_code": 0,
        "retries": 0,
        "why": None,
    }
    return RunRow(**{**values, **changes})


def trial_row(number: int, kept: Sequence[int], accuracy: float, ratio: float, kind: str, **changes: Any) -> RunRow:
    """A scored trial of the pruning sweep; the dense network has 0.93 top-1 and 2 ms."""
    channels = dict(zip(WIDTHS, kept, strict=True))
    summary = {
        "outcome": "scored",
        "score": 1 / (1 + ratio) if 0.93 - accuracy <= 0.01 else -0.5,
        "val_top1": accuracy,
        "metric_drop": 0.93 - accuracy,
        "latency_ratio": ratio,
        "latency_ratio_lo": ratio * 0.98,
        "latency_ratio_hi": ratio * 1.02,
        "latency_p10_ms": 2.0 * ratio,
        "latency_p50_ms": 2.1 * ratio,
        "baseline_p50_ms": 2.1,
        "seconds_prune": 0.5,
        "seconds_train": 20.0,
    }
    config = {
        "kept": channels,
        "ratio": {name: 1 - channels[name] / width for name, width in WIDTHS.items()},
        "device": {"kind": "cpu", "cpu": "Example CPU"},
    }
    return run_row(number, **{"config": config, "summary": summary, "why": {"kind": kind}, **changes})


def trial_rows() -> list[RunRow]:
    """Six scored trials, one diverged, one running."""
    return [
        trial_row(1, (32, 64, 128), 0.930, 1.00, "warm"),
        trial_row(2, (16, 32, 64), 0.926, 0.45, "warm"),
        trial_row(3, (16, 16, 32), 0.900, 0.20, "warm"),
        trial_row(4, (16, 48, 64), 0.925, 0.50, "warm"),
        trial_row(5, (16, 32, 48), 0.924, 0.38, "exploit"),
        trial_row(6, (32, 16, 48), 0.905, 0.30, "explore", retries=1),
        run_row(7, summary={"outcome": "diverged", "failure_kind": "diverged", "failure_stage": "train"}),
        run_row(8, state=RunState.RUNNING, finished_at=None, exit_code=None, agent="agent-b", why={"kind": "exploit"}),
    ]


def generic_rows(losses: Sequence[float] = (0.9, 0.4, 0.6)) -> list[RunRow]:
    """Runs of the sweep that does not prune."""
    return [
        run_row(
            index,
            config={"lr": 0.01 * index, "optimizer": "sgd", "depth": 3, "_wandb": {}},
            summary={"loss": loss, "_step": 9},
            why={"kind": "random"},
        )
        for index, loss in enumerate(losses, start=1)
    ]


def agent_row(name: str, run: str | None = None, host: str = "workbench") -> AgentRow:
    """An agent heard of a minute after the start."""
    return AgentRow(1, name, host, "sweep001", 1, "RUNNING", START, START + timedelta(seconds=60), run)


def by_name(points: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Points of a chart by the name of their run."""
    return {point["name"]: point for point in points}
