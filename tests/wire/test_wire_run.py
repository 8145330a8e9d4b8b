"""Runs of the unmodified wandb client against the hub: logged, read back, resumed, stopped, refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_hub import HubProcess

# One process makes every run of this module: the client's start-up is what takes time.
LOG = """
import wandb

def start(run_id, **more):
    return wandb.init(project="lab", id=run_id, settings=wandb.Settings(console="wrap"), **more)

with start("whole", config={"lr": 0.1, "nest": {"a": [1, 2]}}, tags=["t1", "t2"], notes="note", group="g",
           job_type="control", name="A <b>name</b>") as run:
    run.define_metric("top1", summary="max")
    for step in range(5):
        run.log({"loss": 1 / (step + 1), "top1": [0.1, 0.5, 0.9, 0.3, 0.2][step]})
    run.log({"bad": float("nan")})
    print("hello from the run")
    run.config["late"] = True
    run.summary["score"] = 0.25

run = start("resumed")
for step in range(3):
    run.log({"x": step})
run.finish(exit_code=1)
run = start("resumed", resume="allow")
print("starting step", run.starting_step, run.resumed)
for step in range(2):
    run.log({"x": 10 + step})
run.finish()

run = start("preempted")
run.mark_preempting()
run.finish(exit_code=1)

run = start("failed")
run.finish(exit_code=3)
"""

READ = """
import json, wandb
api = wandb.Api()

def told(name):
    run = api.run(f"local/lab/{name}")
    return {
        "state": run.state, "config": run.config, "summary": json.loads(json.dumps(dict(run.summary), default=dict)),
        "tags": run.tags, "notes": run.notes, "group": run.group, "job_type": run.job_type, "name": run.name,
        "url": run.url, "history": run.history(pandas=False), "scan": list(run.scan_history()),
        "sampled": run.history(keys=["x"], samples=2, pandas=False), "last": run.lastHistoryStep,
        "lines": run._attrs["historyLineCount"], "console": [line.content for line in run.console_logs()],
        "system": len(run.history(stream="system", pandas=False)),
        "steps": list(run.scan_history(min_step=1, max_step=3)),
    }

out = {name: told(name) for name in ("whole", "resumed", "preempted", "failed")}
runs = api.runs("local/lab", filters={"$or": [{"state": "failed"}, {"tags": "t1"}]}, order="-created_at")
out["listed"] = [run.id for run in runs]
out["sorted"] = [run.id for run in api.runs("local/lab", order="-summary_metrics.x", per_page=1)]
out["projects"] = [project.name for project in api.projects()]
out["entity"] = api.default_entity
run = api.run("local/lab/failed")
run.tags.append("seen")
run.name = "renamed"
run.config["added"] = 1
run.update()
run.summary["later"] = 2
run.summary.update()
out["edited"] = told("failed")
api.run("local/lab/preempted").delete()
out["left"] = len(api.runs("local/lab"))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("runs")) as hub:
        yield hub


@pytest.fixture(scope="module")
def logged(hub: HubProcess) -> str:
    return hub.python(LOG)


@pytest.fixture(scope="module")
def read(hub: HubProcess, logged: str) -> dict[str, Any]:
    return dict(json.loads(hub.python(READ).splitlines()[-1]))


def test_a_run_reads_back_as_it_was_logged(read: dict[str, Any], hub: HubProcess) -> None:
    """Configuration, tags, notes, history, summary and names come back through wandb.Api as they went in."""
    run = read["whole"]
    assert run["state"] == "finished"
    assert run["config"] == {"lr": 0.1, "nest": {"a": [1, 2]}, "late": True}
    assert (run["tags"], run["notes"], run["group"], run["job_type"]) == (["t1", "t2"], "note", "g", "control")
    assert run["name"] == "A <b>name</b>"
    assert run["url"] == f"{hub.url}/local/lab/runs/whole"
    assert [row["loss"] for row in run["scan"] if "loss" in row] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert len(run["history"]) == 6
    assert [row["_step"] for row in run["steps"]] == [1, 2]
    assert run["summary"]["score"] == 0.25
    assert run["summary"]["loss"] == 0.2
    assert run["summary"]["top1"] == {"max": 0.9}
    assert run["last"] == 5
    assert run["system"] >= 1
    assert "hello from the run" in run["console"]


def test_a_resumed_run_goes_on_at_its_step(read: dict[str, Any], logged: str) -> None:
    """resume="allow" continues the history instead of writing over it."""
    run = read["resumed"]
    assert "starting step 3 True" in logged
    assert [row["x"] for row in run["scan"]] == [0, 1, 2, 10, 11]
    assert [row["x"] for row in run["sampled"]] == [0, 11]
    assert (run["state"], run["lines"]) == ("finished", 5)


def test_ends_are_told_apart(read: dict[str, Any]) -> None:
    """A preempted run is no failed run."""
    assert read["preempted"]["state"] == "preempted"
    assert read["failed"]["state"] == "failed"


def test_runs_are_listed_filtered_and_sorted(read: dict[str, Any]) -> None:
    """Filters, orders and pages work through wandb.Api; runs without the sorting key come last."""
    assert read["listed"] == ["failed", "whole"]
    assert read["sorted"] == ["resumed", "whole", "preempted", "failed"]
    assert read["projects"].count("lab") == 1  # other tests have projects on the same hub
    assert read["entity"] == "local"


def test_the_public_api_edits_and_deletes(read: dict[str, Any]) -> None:
    """Edits of a finished run keep its state; a deleted run is gone."""
    run = read["edited"]
    assert (run["tags"], run["name"], run["config"], run["state"]) == (["seen"], "renamed", {"added": 1}, "failed")
    assert run["summary"]["later"] == 2
    assert read["left"] == 3


def test_a_wrong_key_is_told_in_one_clear_line(hub: HubProcess) -> None:
    """The client shows the hub's own sentence."""
    output = hub.python("import wandb; wandb.init(project='lab')", check=False, WANDB_API_KEY="0" * 40)
    assert "the API key is missing or not known here" in output
    status, answer = hub.post("/graphql", {"query": "{viewer{id}}"}, key="0" * 40)
    assert (status, "WANDB_API_KEY" in answer["errors"][0]["message"]) == (401, True)


def test_mistakes_in_a_request_are_400(hub: HubProcess) -> None:
    """What the schema rejects is 400, so that the client does not repeat it; an empty operation name is none."""
    assert hub.post("/graphql", {"query": "{viewer{nothing}}"})[0] == 400
    assert hub.post("/graphql", {"query": "{viewer{"})[0] == 400
    assert hub.post("/graphql", {"query": "query A($n: Int!){viewer{id}}", "variables": {"n": "x"}})[0] == 400
    assert hub.post("/graphql", b"no json")[0] == 400
    assert hub.post("/graphql", {"query": "query A {viewer{username}}", "operationName": ""})[1] == {
        "data": {"viewer": {"username": "local"}}
    }


def make_run(hub: HubProcess, name: str) -> str:
    text = (
        "mutation B($name: String!, $config: JSONString) { upsertBucket(input: {name: $name, modelName: $name,"
        ' config: $config, host: "h"}) { bucket { id } } }'
    )
    return str(hub.query(text, name=name, config="{}")["upsertBucket"]["bucket"]["id"])


def test_the_stream_is_idempotent_by_offset(hub: HubProcess) -> None:
    """A repeated chunk is stored once; the answer tells whether the run is to stop."""
    run_id = make_run(hub, "stream")
    path = "/files/local/stream/stream/file_stream"
    chunk = {"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 0, "a": NaN}', '{"_step": 1}']}}}
    assert [hub.post(path, chunk) for _ in range(2)] == [(200, {"stopped": False, "limits": {}})] * 2
    text = '{project(name: "stream") {run(name: "stream") {historyLineCount shouldStop sampledHistory(specs: %s)}}}'
    specs = json.dumps(['{"keys": ["_step", "a"]}'])
    run = hub.query(text % specs)["project"]["run"]
    assert (run["historyLineCount"], run["sampledHistory"]) == (2, [[{"_step": 0, "a": "NaN"}]])
    hub.query("mutation S($id: ID!) {stopRun(input: {id: $id}) {success}}", id=run_id)
    assert hub.post(path, {})[1]["stopped"] is True


def test_only_a_run_that_is_gone_gets_a_4xx(hub: HubProcess) -> None:
    """The client gives up on any 4xx, so strange contents are taken and only a missing run is refused."""
    make_run(hub, "odd")
    strange = {"files": {"unknown.bin": {"offset": 0, "content": ["x"]}, "output.log": {}}, "news": 1}
    assert hub.post("/files/local/odd/odd/file_stream", strange)[0] == 200
    assert hub.post("/files/local/odd/gone/file_stream", {})[0] == 404


def test_rewinding_is_refused_clearly(hub: HubProcess) -> None:
    """What is not served says so."""
    text = 'mutation {rewindRun(input: {runName: "a", metricName: "_step", metricValue: 1}) {rewoundRun {id}}}'
    status, answer = hub.post("/graphql", {"query": text})
    assert (status, answer["errors"][0]["message"]) == (403, "rewinding or forking a run is not served by this server")


def test_telemetry_is_taken(hub: HubProcess) -> None:
    """The client's own telemetry gets a 200, so that it does not try again."""
    assert [hub.post(f"/sdk/otel/v1/{kind}", b"\x0a\x00")[0] for kind in ("metrics", "logs")] == [200, 200]


def test_administrators_make_users_and_tickets(hub: HubProcess) -> None:
    """A user made by the administrator has a key that works and a ticket that signs in; others may not make any."""
    status, made = hub.admin("/admin/users", {"username": "ann", "api_key": "a" * 40})
    assert (status, made) == (201, {"username": "ann", "api_key": "a" * 40})
    status, answer = hub.post("/graphql", {"query": "{viewer{entity}}"}, key="a" * 40)
    assert (status, answer["data"]["viewer"]["entity"]) == (200, "ann")
    assert hub.admin("/admin/tickets", {"username": "ann"})[0] == 201
    assert hub.admin("/admin/tickets", {"username": "nobody"})[0] == 404
    assert hub.admin("/admin/users", {"username": "bob"}, token="wrong")[0] == 401
    assert hub.admin("/admin/users", {"username": "bob", "api_key": "short"})[0] == 400
    assert hub.admin("/admin/users", {"username": 3})[0] == 400


def test_the_key_is_told_on_the_first_start_only(tmp_path: Path) -> None:
    """A restart keeps the key valid and does not tell it; the ready file is private."""
    with HubProcess(tmp_path) as hub:
        first = json.loads((tmp_path / "ready.json").read_text())
        assert (tmp_path / "ready.json").stat().st_mode & 0o777 == 0o600
        assert hub.stop() == 0
        hub.restart()
        second = json.loads((tmp_path / "ready.json").read_text())
        assert second["api_key"] is None
        assert {**second, "pid": 0, "api_key": 0} == {**first, "pid": 0, "api_key": 0}
        assert hub.query("{viewer{username}}")["viewer"]["username"] == "local"
        serve, port = ("python", "-m", "infra.server", "--data"), hub.url.rsplit(":", 1)[1]
        taken = hub.run(*serve, "other", "--port", port, check=False)
        assert taken.count("\n") == 1
        assert "stop what uses it, or take --port 0" in taken
        second_hub = hub.run(*serve, "hub", check=False)
        assert second_hub.count("\n") == 1
        assert "in use by another hub" in second_hub
