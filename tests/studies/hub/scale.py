"""A data folder of any size, written through the hub's own store in a few large transactions."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import cycle

from prunefleet.infra.hub.store.database import Connection, Store, execute, execute_each, insert, scalar
from prunefleet.infra.hub.users.auth import Auth, load_secret

CHUNK = 1000  # runs to a transaction
START = 1_800_000_000.0
SWEEP = """\
name: wide
program: train.py
method: bayes
metric: {name: loss, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  momentum: {min: 0.0, max: 0.99}
  weight_decay: {distribution: log_uniform_values, min: 0.000001, max: 0.01}
  batch_size: {values: [32, 64, 128, 256]}
  width: {values: [16, 32, 64, 128]}
  dropout: {min: 0.0, max: 0.5}
  optimizer: {values: [sgd, adam, adamw]}
  epochs: {value: 20}
"""
# What the client itself puts beside a run's parameters: as long as that of wandb 0.31.
_CLIENT = {
    "value": {
        "cli_version": "0.31.0",
        "python_version": "3.11.7",
        "m": [],
        "t": {"1": [1, 41, 49, 51, 53, 55], "2": [1, 41, 49], "3": [2, 13, 16, 55], "4": "3.11.7", "5": "0.31.0"},
        "e": {
            "0123456789abcdef0123456789abcdef": {
                "os": "Linux-6.1.0-18-amd64-x86_64-with-glibc2.36",
                "python": "CPython 3.11.7",
                "startedAt": "2026-03-01T12:00:00.000000Z",
                "args": ["--lr=0.01", "--momentum=0.9", "--batch_size=64"],
                "program": "/home/user/project/train.py",
                "codePath": "train.py",
                "host": "workbench",
                "executable": "/home/user/project/.venv/bin/python",
                "cpu_count": 8,
                "cpu_count_logical": 16,
                "memory": {"total": "67430932480"},
                "disk": {"/": {"total": "500000000000", "used": "100000000000"}},
            }
        },
    }
}
_RUN = """
INSERT INTO run (project_id, name, sweep_id, agent_id, user_id, state, display_name, config, client_config, summary,
                 args, why, host, program, exit_code, created_at, issued_at, started_at, heartbeat_at, finished_at)
VALUES (:project_id, :name, :sweep_id, :agent_id, :user_id, 'finished', :display_name, :config, :client_config,
        :summary, :args, :why, 'workbench', 'train.py', 0, :at, :at, :at, :end, :end)
"""
_LINES = """
WITH RECURSIVE step (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM step WHERE n + 1 < :rows)
INSERT INTO line (run_id, stream, number, step, text)
SELECT run.id, 'history', n, n,
       printf('{"_step":%d,"_runtime":%.3f,"_timestamp":%.3f,"epoch":%d,"loss":%.6f,"val_loss":%.6f,"accuracy":%.6f}',
              n, n * 0.5, :start + n * 0.5, n / 10, 1.0 / (n + 1) + run.id % 97 / 97.0, 1.1 / (n + 1), n / 200.0)
FROM run CROSS JOIN step WHERE run.id BETWEEN :low AND :high
ORDER BY run.id, n
"""


def fill(
    store: Store,
    project: str,
    sweeps: Sequence[int],
    rows: int,
    state: str = "FINISHED",
    methods: Sequence[str] = ("bayes",),
) -> list[str]:
    """A project of the user `local` with one sweep of each size, its runs finished with `rows` rows of history each.

    The sweeps take turns with the methods. Returns their names.
    """
    Auth(store, load_secret(store.folder)).ensure_first_user()
    names = [f"{project}{number:03d}" for number in range(len(sweeps))]
    project_id = store.write(lambda c: _project(c, project))
    for name, size, method in zip(names, sweeps, cycle(methods)):
        file = SWEEP.replace("bayes", method)
        sweep_id, agent_id = store.write(lambda c, name=name, file=file: _sweep(c, project_id, name, state, file))
        for first in range(0, size, CHUNK):
            numbers = range(first, min(first + CHUNK, size))
            store.write(lambda c, s=sweep_id, a=agent_id, n=numbers: _runs(c, project_id, s, a, n, rows))
    return names


def _project(connection: Connection, name: str) -> int:
    user = scalar(connection, "SELECT MIN(id) FROM user")
    return insert(connection, "project", entity="local", name=name, user_id=user, created_at=START)


def _sweep(connection: Connection, project_id: int, name: str, state: str, file: str) -> tuple[int, int]:
    times = {"user_id": 1, "created_at": START}
    found = insert(
        connection,
        "sweep",
        project_id=project_id,
        name=name,
        config_yaml=file,
        state=state,
        updated_at=START,
        **times,
    )
    agent = insert(
        connection, "agent", name=f"{name}-agent", sweep_id=found, host="workbench", heartbeat_at=START, **times
    )
    return found, agent


def _runs(connection: Connection, project_id: int, sweep_id: int, agent_id: int, numbers: range, rows: int) -> None:
    before = scalar(connection, "SELECT COALESCE(MAX(id), 0) FROM run")
    common = {"project_id": project_id, "sweep_id": sweep_id, "agent_id": agent_id, "user_id": 1}
    execute_each(connection, _RUN, [{**common, **run} for run in _described(sweep_id, numbers)])
    high = scalar(connection, "SELECT MAX(id) FROM run")
    execute(connection, _LINES, rows=rows, start=START, low=before + 1, high=high)
    execute(connection, "UPDATE run SET history_lines = :rows WHERE id > :before", rows=rows, before=before)


def _described(sweep_id: int, numbers: range) -> Iterator[dict[str, object]]:
    draw = random.Random(f"{sweep_id}/{numbers.start}")
    for number in numbers:
        args = {
            "lr": 10 ** draw.uniform(-4, -1),
            "momentum": draw.uniform(0, 0.99),
            "weight_decay": 10 ** draw.uniform(-6, -2),
            "batch_size": draw.choice([32, 64, 128, 256]),
            "width": draw.choice([16, 32, 64, 128]),
            "dropout": draw.uniform(0, 0.5),
            "optimizer": draw.choice(["sgd", "adam", "adamw"]),
            "epochs": 20,
        }
        loss = draw.uniform(0.1, 2.0)
        summary = {"loss": loss, "val_loss": loss * 1.1, "accuracy": 1 - loss / 3, "epoch": 19, "_step": 199}
        summary |= {"_runtime": 100.0, "_timestamp": START + 100, "_wandb": {"runtime": 100}}
        yield {
            "name": f"s{sweep_id}r{number:05d}",
            "display_name": f"trial-{number + 1}",
            "config": json.dumps({key: {"value": value} for key, value in args.items()}),
            "client_config": json.dumps(_CLIENT),
            "summary": json.dumps(summary),
            "args": json.dumps(args),
            "why": json.dumps({"kind": "explore", "value": {"expected": loss, "lo": loss - 0.1, "hi": loss + 0.1}}),
            "at": START + 60 * number,
            "end": START + 60 * number + 100,
        }
