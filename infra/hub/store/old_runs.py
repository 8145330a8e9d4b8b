"""SQL for what has become old: runs, and artifacts that were begun and never finished."""

from __future__ import annotations

import json
from collections.abc import Collection

from prunefleet.infra.hub.store.database import Connection, many, scalar
from prunefleet.infra.hub.store.states import ENDED_STATES

_ENDED = ", ".join(f"'{state.value}'" for state in sorted(ENDED_STATES))


def old_runs(connection: Connection, before: float, run_id: int | None = None) -> list[int]:
    """Ids of runs (or of that one, if so) that ended before a time.

    Those of a sweep that may still go on stay: `run_cap` counts them.
    """
    sql = f"""
    SELECT run.id FROM run LEFT JOIN sweep ON sweep.id = run.sweep_id
    WHERE run.state IN ({_ENDED}) AND COALESCE(run.finished_at, run.heartbeat_at, run.created_at) < :before
        AND COALESCE(run.heartbeat_at, 0) < :before
        AND (sweep.id IS NULL OR sweep.state IN ('FINISHED', 'CANCELED'))
        AND (:id IS NULL OR run.id = :id) ORDER BY run.id
    """  # noqa: S608 - states of ours
    return [row["id"] for row in many(connection, sql, before=before, id=run_id)]


def abandoned_artifacts(connection: Connection, before: float, artifact_id: int | None = None) -> list[int]:
    """Ids of artifacts, or of that one, that were not finished, and that nothing arrived for since a time."""
    sql = """
    SELECT id FROM artifact WHERE state = 'PENDING' AND updated_at < :before AND (:id IS NULL OR id = :id)
        AND NOT EXISTS
        (SELECT 1 FROM artifact_file WHERE artifact_id = artifact.id AND artifact_file.updated_at >= :before)
    """
    return [row["id"] for row in many(connection, sql, before=before, id=artifact_id)]


def logged_bytes(connection: Connection, runs: Collection[int]) -> int:
    """Bytes of the lines that runs have logged."""
    sql = """
    SELECT COALESCE(SUM(LENGTH(CAST(text AS BLOB))), 0) FROM line
    WHERE run_id IN (SELECT value FROM json_each(:runs))
    """
    return int(scalar(connection, sql, runs=json.dumps(list(runs))))
