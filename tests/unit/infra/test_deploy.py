"""The files of infra/deploy: linted by the tools made for them, and where a machine can run them here, run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunefleet.infra import cli

from support.paths import ROOT
from support.wait import wait_for

DEPLOY = ROOT / "infra" / "deploy"
BIN = Path(sys.executable).parent
UNITS = sorted((DEPLOY / "systemd").iterdir())
WANDB = """#!/bin/sh
echo "$@" > {folder}/asked
trap 'echo stopped > {folder}/stopped; exit 0' TERM
touch {folder}/ready
[ -n "$CODE" ] && exit "$CODE"
while :; do sleep 0.1; done
"""


def lint(*argv: str | Path) -> None:
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_array_script_has_no_fault_that_shellcheck_knows() -> None:
    """Quoting, unset variables, wrong tests."""
    lint(BIN / "shellcheck", DEPLOY / "slurm" / "agents.sbatch")


def test_the_image_has_no_fault_that_hadolint_knows() -> None:
    """Layers, users, shells."""
    if not (BIN / "hadolint").exists():
        pytest.skip("hadolint has no wheel for this machine")
    lint(BIN / "hadolint", DEPLOY / "compose" / "Dockerfile")


@pytest.mark.parametrize("file", sorted((DEPLOY / "kubernetes").iterdir()), ids=lambda file: file.name)
def test_manifests_are_as_kubernetes_describes_them(file: Path) -> None:
    """Unknown fields and wrong types are refused."""
    lint(BIN / "kubernetes-validate", "--strict", file)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_as_systemd_describes_them(unit: Path, tmp_path: Path) -> None:
    """Unknown settings and wrong values are told; the environment's programs stand for themselves."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian's systemd)")
    text = unit.read_text()
    for program in ("wandb", "prunefleet"):
        text = text.replace(f"%h/prunefleet/bin/{program} ", f"{shutil.which('true')} ")
    (tmp_path / unit.name).write_text(text)
    argv = ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / unit.name)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def commands() -> Iterator[list[str]]:
    """Every command line of a container or a unit."""
    for file in (DEPLOY / "kubernetes").iterdir():
        for document in yaml.safe_load_all(file.read_text()):
            for container in _containers(document):
                yield container["command"]
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    yield from (service["command"] for service in compose["services"].values() if "command" in service)
    for unit in UNITS:
        start = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
        words = start.partition("=")[2].split()
        yield words[next(place for place, word in enumerate(words) if word.startswith("%h/prunefleet/bin/")) :]


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["spec"].get("template", {}).get("spec", {}).get("containers", [])
    return found


def test_every_command_line_is_one_that_its_program_takes() -> None:
    """Options that were renamed or never existed are found here, not on somebody's cluster."""
    shown = subprocess.run([str(BIN / "wandb"), "agent", "--help"], capture_output=True, text=True, check=True).stdout
    found = list(commands())
    assert len(found) == 5
    for words in found:
        program, command, *rest = (Path(words[0]).name, *words[1:])
        if program == "wandb":
            assert command == "agent" and all(word in shown for word in rest if word.startswith("--"))
        else:
            assert program == "prunefleet" and cli.parser().parse_args([command, *rest]).command in ("hub", "agent")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Any]:
    """Starts the array script with a client and a scheduler that note what they are asked."""
    for name, text in (
        ("wandb", WANDB.format(folder=tmp_path)),
        ("scontrol", f'#!/bin/sh\necho "$@" > {tmp_path}/scheduler\n'),
    ):
        (tmp_path / "env" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "env" / "bin" / name).write_text(text)
        (tmp_path / "env" / "bin" / name).chmod(0o755)
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> "subprocess.Popen[str]":
        needed = {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "k" * 40, "SWEEP": "me/lab/s"}
        own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PRUNEFLEET_ENV": str(tmp_path / "env")}
        environment = {key: value for key, value in {**needed, **own, "SLURM_JOB_ID": "7", **settings}.items() if value}
        argv = ["bash", str(DEPLOY / "slurm" / "agents.sbatch")]
        started.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def test_a_job_whose_time_is_over_stops_its_agent_and_queues_again(job: Any, tmp_path: Path) -> None:
    """The signal before the end goes to the agent, which hands its run back; then the scheduler is asked once."""
    running = job()
    wait_for(lambda: (tmp_path / "ready").exists(), 60)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
    assert (tmp_path / "stopped").exists() and (tmp_path / "scheduler").read_text() == "requeue 7\n"
    assert (tmp_path / "asked").read_text() == "agent --forward-signals --term-timeout 90 me/lab/s\n"


@pytest.mark.parametrize("code", ["0", "3"])
def test_a_job_ends_as_its_agent_does(job: Any, tmp_path: Path, code: str) -> None:
    """With its code, and without being queued again."""
    assert job(CODE=code).wait(60) == int(code)
    assert not (tmp_path / "scheduler").exists()


def test_a_job_without_a_sweep_says_so_in_one_line(job: Any) -> None:
    """What is missing is named, before anything is started."""
    running = job(SWEEP="")
    _, told = running.communicate(timeout=60)
    assert running.returncode != 0 and told.strip().endswith("SWEEP: set it to ENTITY/PROJECT/SWEEP")
