"""Our search beside a server that cannot be changed: the real `wandb sweep-scheduler` and agents.

Here on the hub; `make test-live` runs the same on wandb.ai or a W&B Server.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest

from prunefleet.objective.profiles.space import Space

from support.controller import GROUPS, Problem, sweep_config
from support.hub import HubProcess
from support.paths import TESTS
from support.wait import wait_for

pytestmark = pytest.mark.skipif(not find_spec("optuna"), reason="needs optuna, as the extra dev installs it")
LIVE = "PRUNEFLEET_LIVE"
PROJECT = "prunefleet-scheduler-test"
PROBLEM = Problem.seeded(0)
WARM = [tuple(Space(GROUPS).kept(ratios).values()) for ratios in PROBLEM.profile().warm]
RUNS = len(WARM) + 2
TESTS = {"PYTHONPATH": str(TESTS)}
PUBLISH = f"""
import wandb
run = wandb.init(project="{PROJECT}", job_type="profile")
artifact = wandb.Artifact("profile-formula-cpu-f32", type="profile")
artifact.add_file("profile.json")
run.log_artifact(artifact).wait()
run.finish()
"""
SEARCH = "from prunefleet import candidate, study\n"
# The third candidate is too slow to be trained: it has a latency alone.
TRIAL = """
import wandb
from support.controller import GROUPS, Problem
from prunefleet.objective.profiles.space import Space

run = wandb.init()
kept = Space(GROUPS).kept(run.config["ratio"])
trial = Problem.seeded(0).trial(run.id, {}, kept, 0)
told = {"latency_ratio": trial.latency_ratio, "outcome": "skipped"}
if list(kept.values()) != %s:
    told |= {"outcome": "scored", "score": trial.value, "metric_drop": trial.drop}
run.summary.update(told)
run.finish()
"""
MAKE = """
import json, wandb
print("made", wandb.Api().default_entity, wandb.sweep(json.load(open("sweep.json")), project="%s"))
"""
READ = """
import json, wandb
runs = sorted(wandb.Api().sweep("%s").runs, key=lambda run: run.created_at)
keys = ("outcome", "latency_ratio")
told = [(run.state, run.config["ratio"], {key: run.summary.get(key) for key in keys}) for run in runs]
print("read" + json.dumps(told))
"""


class Account(HubProcess):
    """The server and the key of whoever runs the tests in place of a hub."""

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self) -> int:
        """There is nothing to stop."""
        return 0

    def env(self, **more: str) -> dict[str, str]:
        """Their own environment."""
        return dict(os.environ) | {"WANDB_DIR": str(self.folder)} | more


@dataclass
class Scheduled:
    """A finished sweep at entity/project/id that `wandb sweep-scheduler` filled, and what that printed."""

    server: HubProcess
    path: str
    words: str

    def runs(self) -> list[tuple[str, tuple[int, ...], dict[str, Any]]]:
        """State, kept channels and summary of its runs, oldest first."""
        told = json.loads(self.server.run(sys.executable, "-c", READ % self.path).rpartition("read")[2])
        return [(state, tuple(Space(GROUPS).kept(ratio).values()), summary) for state, ratio, summary in told]


# `make test` has `wandb sweep-scheduler` at the hub in test_wire_search.py, and our search in it, without processes, in
# tests/unit/infra/test_scheduler.py.
@pytest.fixture(scope="module", params=[pytest.param("hub", marks=pytest.mark.slow), "account"])
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    """On the hub, and on an account where one is meant to be used."""
    if request.param == "account" and not os.environ.get(LIVE):
        pytest.skip("uses an account of wandb.ai or a W&B Server: make test-live")
    kind = HubProcess if request.param == "hub" else Account
    with kind(tmp_path_factory.mktemp("scheduler")) as server:
        (server.folder / "profile.json").write_text(json.dumps(PROBLEM.profile().to_json()))
        (server.folder / "search.py").write_text(SEARCH)
        (server.folder / "trial.py").write_text(TRIAL % list(WARM[2]))
        server.run(sys.executable, "-c", PUBLISH)
        path = make(server, RUNS)
        argv = ("sweep-scheduler", "--batch-size", "2", "--poll-interval", "1", path)
        scheduler = server.popen(sys.executable, "-m", "wandb", *argv)
        server.popen(sys.executable, "-m", "wandb", "agent", path, **TESTS)
        words = scheduler.communicate(timeout=400)[0]
        assert scheduler.returncode == 0, words
        yield Scheduled(server, path, words)


def make(server: HubProcess, cap: int, **more: Any) -> str:
    """The path of a new sweep."""
    config = sweep_config()
    config["parameters"] |= {"profile": {"value": "latest"}, **more}
    config |= {
        "program": "trial.py",
        "method": "custom",
        "run_cap": cap,
        "scheduler": {"engine": "optuna", "source": "search.py", "optimizer": "study", "search_space": "candidate"},
    }
    (server.folder / "sweep.json").write_text(json.dumps(config))
    entity, name = server.run(sys.executable, "-c", MAKE % PROJECT).rpartition("made ")[2].split()
    return f"{entity}/{PROJECT}/{name}"


def test_our_search_chooses_what_the_client_schedules(sweep: Scheduled) -> None:
    """The profile's warm points come first, then what its models want, none twice; the sweep ends at its run_cap."""
    wait_for(lambda: all(state == "finished" for state, *_ in sweep.runs()), 60)
    tried = [kept for _, kept, _ in sweep.runs()]
    assert tried[: len(WARM)] == WARM
    assert len(tried) == RUNS
    assert len(set(tried)) == RUNS
    assert "Trial 0: warm" in sweep.words
    assert "expects drop" in sweep.words


def test_what_a_skipped_run_measured_is_not_lost(sweep: Scheduled) -> None:
    """Optuna sees a run without a score as failed; our search reads its latency."""
    skipped = [(kept, told["latency_ratio"]) for _, kept, told in sweep.runs() if told["outcome"] == "skipped"]
    ratio = PROBLEM.trial("", {}, dict(zip([g.name for g in GROUPS], WARM[2], strict=True)), 0).latency_ratio
    assert skipped == [(WARM[2], ratio)]
    entity, project, name = sweep.path.split("/")
    code = f"""
from wandb import Api
from wandb.sdk.sweeps.sweep_info import SweepInfo
from prunefleet.infra.scheduler import ScheduledSampler
config = Api().sweep("{sweep.path}").config
for trial in ScheduledSampler(SweepInfo("{name}", "s", "{entity}", "{project}", config, ""))._trials():
    if trial.outcome == "skipped":
        print("skipped", trial.drop, trial.latency_ratio)
"""
    assert f"skipped None {ratio}" in sweep.server.run(sys.executable, "-c", code)


def test_a_sweep_that_cannot_be_searched_is_told_in_a_line(sweep: Scheduled) -> None:
    """The command ends with field, value and remedy, and without a traceback."""
    path = make(sweep.server, 2, ratio={"parameters": {"nowhere": {"min": 0.0, "max": 0.5}}})
    words = sweep.server.run(sys.executable, "-m", "wandb", "sweep-scheduler", path, check=False)
    assert "name a group of the profile" in words
    assert "Traceback" not in words
