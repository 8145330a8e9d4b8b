"""A user's task in one folder, planned there; real agents elsewhere that have nothing of it run it, or refuse to."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.code import CARRIED, NAME, write_task
from support.fork import FakeAgent
from support.hub import HubProcess
from support.paths import ROOT, TESTS

SWEEP = f"""
name: mine
program: prunefleet
command: ["${{env}}", prunefleet, trial]
method: random
metric: {{name: score, goal: maximize}}
run_cap: 2
parameters:
  task: {{value: "{NAME}"}}
  upload: {{value: all}}
  objective: {{parameters: {{kind: {{value: fastest}}, metric: {{value: top1}}, max_drop: {{value: 0.5}}}}}}
  recipe: {{parameters: {{epochs: {{value: 0.5}}}}}}
"""
CONFIG = f"""
task: {{value: "{NAME}"}}
code: {{value: CODE}}
objective: {{value: {{kind: fastest, max_drop: 0.5}}}}
recipe: {{value: {{epochs: 0.2}}}}
ratio: {{value: {{conv1: 0.5}}}}
"""
PUBLISH = """
from prunefleet.agent.tracking import tracked_run as report
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.tasks.code.carried import publish
from prunefleet.agent.tasks.code.source import code_of
with report.own_run(StopSignal(), "test") as session:
    print(publish(session, code_of("my_task")))
"""


class Lab:
    """A hub, and hosts on this machine with a folder and a cache each and nothing of the user's on their path."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub

    def env(self, host: str, **more: str) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "PRUNEFLEET_CACHE": str(self.cache(host))}
        return {**own, "OMP_NUM_THREADS": "1", "WANDB_PROJECT": "lab", **more}

    def cache(self, host: str) -> Path:
        return self.hub.folder / f"{host}-cache"

    def folder(self, host: str) -> Path:
        found = self.hub.folder / host
        found.mkdir(exist_ok=True)
        return found

    def on(self, host: str, *argv: str, code: int = 0, **more: str) -> str:
        """What a command says that is started in the host's folder, once it has ended."""
        line = ("sh", "-c", 'cd "$0" && exec "$@"', str(self.folder(host)), sys.executable, *argv)
        process: subprocess.Popen[str] = self.hub.popen(*line, **self.env(host, **more))
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def users_folder(self, host: str, answer: int = 1) -> Path:
        """A host's folder with the user's task and all that it imports."""
        folder = write_task(self.folder(host), answer)
        shutil.copy(TESTS / "tiny_task.py", folder)
        return folder

    def brief(self, host: str) -> None:
        """Let what the task imports make measurements brief, wherever it travels."""
        parts = [(TESTS / name).read_text() for name in ("tiny_task.py", "support/brief.py")]
        (self.folder(host) / "tiny_task.py").write_text("\n".join([*parts, "measure_briefly()\n"]))

    def trial(self, host: str, sweep: str, **more: str) -> dict[str, Any]:
        """The newest run of a sweep, after an agent on that host has been given one."""
        said = self.on(host, "-m", "wandb", "agent", "--count", "1", sweep, **more)
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
            runs(order: "-created_at") { edges { node { name state config summaryMetrics } } } } } }"""
        run = self.hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["runs"]["edges"][0]["node"]
        config = {key: each["value"] for key, each in json.loads(run["config"]).items() if "value" in each}
        return run | {"config": config, "summary": json.loads(run["summaryMetrics"] or "{}"), "said": said}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with HubProcess(tmp_path / "hub") as hub:
        yield Lab(hub)


# `make test` has the test below, with real trials of code that is fetched; and what is listed, sent, refused and kept,
# without processes, in tests/unit/agent/tasks/test_carried.py and test_source.py.
@pytest.mark.slow
def test_a_host_with_an_empty_folder_runs_the_sweeps_code_or_refuses_it(lab: Lab) -> None:
    """`plan` lists and sends it, an agent elsewhere fetches and scores; one that may not fetch takes no trial."""
    folder = lab.users_folder("author")
    (folder / "sweep.yaml").write_text(SWEEP)
    said = lab.on("author", "-m", "prunefleet.agent", "plan", "sweep.yaml", "--out", "resolved.yaml", "--mixed", "0")
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    code = resolved["parameters"]["code"]["value"]
    sha256 = code.removeprefix("code-").removesuffix(":v0")
    listed = [line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("code ")]
    assert listed == [*sorted([*CARRIED, "tiny_task.py"]), sha256[:12]]

    lab.folder("other")
    told = lab.hub.wandb("sweep", "--project", "lab", str(folder / "resolved.yaml"), **lab.env("author"))
    sweep = "local/lab/" + told.split("wandb agent local/lab/")[1].split()[0]
    run = lab.trial("other", sweep)
    assert run["summary"].get("outcome") == "scored", run
    assert run["config"]["code"] == code and run["summary"]["seconds_code"] > 0
    assert (lab.cache("other") / "code" / sha256 / "my_task.py").is_file()
    assert not list(lab.folder("other").glob("*.py"))

    run = lab.trial("strict", sweep, PRUNEFLEET_NO_REMOTE_CODE="1")
    line = f"code of {NAME}: got 'none'; bring the sweep's, {sha256[:12]}, to this host"
    assert (run["summary"]["failure_kind"], run["summary"]["failure_stage"]) == ("data", "code"), run
    assert run["summary"]["failure_message"].startswith(line) and "NO_REMOTE_CODE is set" in run["said"]
    assert "outcome" not in run["summary"] and not list(lab.cache("strict").rglob("*.zip"))


def test_one_fork_server_runs_two_codes_of_one_name(lab: Lab, tmp_path: Path) -> None:
    """Trials of two sweeps, forked off one loaded process, each have the code that their sweep names."""
    names = []
    for answer in (1, 2):
        lab.users_folder("author", answer)
        lab.brief("author")
        names.append(lab.on("author", "-c", PUBLISH, WANDB_SILENT="true").split()[-1])
    assert len(set(names)) == 2
    (tmp_path / "agent").mkdir()
    with FakeAgent(tmp_path / "agent", lab.hub.env(**lab.env("other"))) as agent:
        servers = set()
        for turn in (0, 1):
            config = agent.folder / "config.yaml"
            config.write_text(CONFIG.replace("CODE", names[turn]))
            before = len(agent.output()) if turn else 0
            started = agent.start(f"run{turn}", WANDB_SWEEP_PARAM_PATH=str(config))
            assert agent.wait(started) == 0, agent.output()[-3000:]
            said = agent.output()[before:]
            assert f"answer {turn + 1}" in said and f"answer {2 - turn}" not in said
            servers |= set(agent.members()) - {agent.pid}
        assert len(servers) == 1
