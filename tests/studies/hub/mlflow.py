"""MLflow's tracking server on SQLite, in an environment of its own that is made when it is first needed."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from support.paths import ROOT
from support.wait import wait_for

PLACE = Path(os.environ.get("MLFLOW_VENV", ROOT / ".bench" / "mlflow"))


def install() -> str:
    """MLflow's version. Raises `RuntimeError` with the reason where it cannot be installed."""
    python = PLACE / "bin" / "python"
    tell = [str(python), "-c", "import mlflow; print(mlflow.__version__)"]
    if not python.exists() or subprocess.run(tell, capture_output=True, check=False).returncode:
        for argv in ([sys.executable, "-m", "venv", str(PLACE)], [str(python), "-m", "pip", "install", "-q", "mlflow"]):
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1200)
            if done.returncode:
                raise RuntimeError(f"MLflow cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return subprocess.run(tell, capture_output=True, text=True, check=True).stdout.strip()


class Client:
    """JSON over one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Let go of the connection, which a server ends that has not heard for a while; the next post opens another."""
        self._connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """The answer. Raises `RuntimeError` for any status but 200."""
        content = json.dumps(body)
        self._connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text or b"{}")


@contextmanager
def server(folder: Path, port: int) -> Iterator[int]:
    """A tracking server with one worker and without its runner of jobs on that port; its process id."""
    argv = [str(PLACE / "bin" / "python"), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    argv += ["--default-artifact-root", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("ab") as log:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, start_new_session=True, env=environment)
    try:
        wait_for(lambda: _healthy(port), 180)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # nothing in its folder is needed any more
        process.wait(30)


def new_run(client: Client) -> str:
    """A run in a new experiment; its id."""
    made = client.post("/api/2.0/mlflow/experiments/create", {"name": "bench"})
    told = client.post("/api/2.0/mlflow/runs/create", {"experiment_id": made["experiment_id"], "start_time": 0})
    return str(told["run"]["info"]["run_id"])


def log_rows(client: Client, run: str, rows: list[dict[str, Any]]) -> None:
    """Rows of history as one batch of metrics: each number of a row with the row's step and time."""
    metrics = [
        {"key": key, "value": value, "timestamp": int(1e3 * row["_timestamp"]), "step": row["_step"]}
        for row in rows
        for key, value in row.items()
        if not key.startswith("_")
    ]
    client.post("/api/2.0/mlflow/runs/log-batch", {"run_id": run, "metrics": metrics, "params": [], "tags": []})


def _healthy(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
    except OSError:
        return False
