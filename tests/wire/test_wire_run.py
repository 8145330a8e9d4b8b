"""Runs of the unmodified wandb client against the hub: logged, read back, resumed, edited, stopped, refused."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.clients import Client
from support.hub import HubProcess

# One process makes every run of this module: the client's start-up is what takes time.
LOG = """
import wandb

def start(run_id, console="off", **more):
    return wandb.init(project="lab", id=run_id, settings=wandb.Settings(console=console, silent=True), **more)

def refused(**asked):
    try:
        start(**asked)
    except Exception as error:
        print("REFUSED", str(error).replace(chr(10), " "))

with start("whole", "wrap", config={"lr": 0.1, "nest": {"a": [1, 2]}}, tags=["t1", "t2"], notes="note", group="g",
           job_type="control", name="A <b>name</b>") as run:
    run.define_metric("top1", summary="max")
    for step in range(5):
        run.log({"loss": 1 / (step + 1), "top1": [0.1, 0.5, 0.9, 0.3, 0.2][step], "deep": {"er": step}})
    run.log({"bad": float("nan")})
    print("hello from the run")
    run.config["late"] = True
    run.summary["score"] = 0.25
    run.alert("too hot", "the device throttles", level=wandb.AlertLevel.WARN)

run = start("resumed")
for step in range(3):
    run.log({"x": step})
run.finish(exit_code=1)
run = start("resumed", resume="allow")
print("starting step", run.starting_step, run.resumed)
for step in range(2):
    run.log({"x": 10 + step})
run.finish()
with start("resumed", resume="must") as run:
    print("starting step", run.starting_step, run.resumed)
    run.log({"x": 20})
refused(run_id="missing", resume="must")
refused(run_id="resumed", resume="never")

run = start("preempted", resume="never")
run.mark_preempting()
run.finish(exit_code=1)

run = start("failed")
run.finish(exit_code=3)
"""

READ = """
import json, wandb
from wandb.apis.public import Run
api = wandb.Api()

def told(name):
    run = wandb.Api().run(f"local/lab/{name}")
    return {
        "state": run.state, "config": run.config, "summary": json.loads(json.dumps(dict(run.summary), default=dict)),
        "tags": run.tags, "notes": run.notes, "group": run.group, "job_type": run.job_type, "name": run.name,
        "url": run.url, "user": run.user.username, "history": run.history(pandas=False),
        "scan": list(run.scan_history()), "scan_x": [row["x"] for row in run.scan_history(keys=["x"], page_size=2)],
        "beta": len(list(run.beta_scan_history(page_size=2))),
        "nested": [row["deep.er"] for row in run.scan_history(keys=["deep.er"])],
        "sampled": run.history(keys=["x"], samples=2, pandas=False), "last": run.lastHistoryStep,
        "axis": run.history(keys=["loss"], x_axis="top1", pandas=False)[:2], "lines": run._attrs["historyLineCount"],
        "console": run.file("output.log").download(replace=True).read() if name == "whole" else "",
        "steps": list(run.scan_history(min_step=1, max_step=3)),
    }

def ids(filters, order="+created_at"):
    return [run.id for run in api.runs("local/lab", filters=filters, order=order)]

def refused(call):
    try:
        return str(call())
    except Exception as error:
        return str(error)

def start(**asked):
    return wandb.init(project="lab", settings=wandb.Settings(console="off", silent=True), **asked)

branches = [refused(lambda: start(**{how: "resumed?_step=1"})) for how in ("fork_from", "resume_from")]
out = {name: told(name) for name in ("whole", "resumed", "preempted", "failed")}
if hasattr(Run, "console_logs"):
    run = api.run("local/lab/whole")
    out["console"] = [[line.content for line in run.console_logs(**how)] for how in ({"per_page": 1}, {"last": 1})]
whole = {
    "state": {"state": "finished", "tags": "t1"},
    "columns": {"group": "g", "jobType": "control", "display_name": {"$regex": "^A <b>"}, "username": "local"},
    "config": {"config.lr": {"$gt": 0.05, "$lte": 0.1}, "config.nest.value.a": {"$exists": True}},
    "summary": {"summary_metrics.loss": {"$lt": 0.5}, "summary_metrics.top1.max": {"$gte": 0.9}},
    "not": {"$nor": [{"name": {"$in": ["resumed", "preempted"]}}, {"state": {"$ne": "finished"}}]},
    "times": {"created_at": {"$gt": "2020-01-01T00:00:00Z"}, "heartbeat_at": {"$lt": "2120-01-01"},
              "$not": {"name": {"$nin": ["whole"]}}},
    "nothing": {"$and": [{"sweep": None}, {"$or": [{"config.lr": 0.1}, {"config.lr": 7}]}]},
}
out["filtered"] = {key: ids(document) for key, document in whole.items()}
out["listed"] = ids({"$or": [{"state": "failed"}, {"tags": "t1"}]}, "-created_at")
out["sorted"] = [run.id for run in api.runs("local/lab", order="-summary_metrics.x", per_page=1)]
out["by_config"] = ids({}, "-config.lr.value,+name")
out["count"] = len(api.runs("local/lab", filters={"state": "finished"}))
out["all_at_once"] = [run.config.get("lr") for run in api.runs("local/lab", lazy=False)]
out["histories"] = len(api.runs("local/lab").histories(keys=["x"], format="default"))
out["projects"] = [project.name for project in api.projects("local", per_page=1)]
out["entity"], out["viewer"] = api.default_entity, api.viewer.username
out["reports"] = list(api.reports("local/lab"))
out["missing"] = [refused(lambda: api.run("local/lab/none")), refused(lambda: api.sweep("local/lab/none")),
                  refused(lambda: api.runs("local/none")[0])]
run = api.run("local/lab/failed")
run.tags.append("seen")
run.name, run.notes, run.config["added"] = "renamed", "changed", 1
run.update()
run.summary["later"] = 2
run.summary.update({"nest": {"deep": [1]}})
out["edited"] = told("failed")
run = wandb.Api().run("local/lab/failed")
run.tags, run.notes = [], ""
del run.summary["later"]
run.update()
out["cleared"] = told("failed")
out["reset"] = [run.update_state("pending"), wandb.Api().run("local/lab/failed").state]
out["kept"] = refused(lambda: api.run("local/lab/whole").update_state("pending"))
made = Run.create(wandb.Api(), run_id="made", project="lab", state="pending")
out["made"] = [made.state]
with start(id="made", resume="allow") as run:
    run.log({"x": 1})
made = wandb.Api().run("local/lab/made")
out["made"] += [made.state, made.lastHistoryStep]
api.run("local/lab/preempted").delete(delete_artifacts=True)
out["branches"] = branches
out["left"] = len(wandb.Api().runs("local/lab"))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, wandb_client: Client) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("runs"), client=wandb_client) as hub:
        yield hub


@pytest.fixture(scope="module")
def logged(hub: HubProcess) -> str:
    return hub.python(LOG)


@pytest.fixture(scope="module")
def read(hub: HubProcess, logged: str) -> dict[str, Any]:
    return dict(json.loads(hub.python(READ).splitlines()[-1]))


@pytest.mark.both
def test_a_run_reads_back_as_it_was_logged(read: dict[str, Any], hub: HubProcess) -> None:
    """Configuration, tags, notes, history, summary and names come back through wandb.Api as they went in."""
    run = read["whole"]
    assert run["state"] == "finished"
    assert run["config"] == {"lr": 0.1, "nest": {"a": [1, 2]}, "late": True}
    assert (run["tags"], run["notes"], run["group"], run["job_type"]) == (["t1", "t2"], "note", "g", "control")
    assert (run["name"], run["user"]) == ("A <b>name</b>", "local")
    assert run["url"] == f"{hub.url}/local/lab/runs/whole"
    assert run["summary"]["score"] == 0.25
    assert run["summary"]["loss"] == 0.2
    assert run["summary"]["top1"] == {"max": 0.9}
    assert "hello from the run" in run["console"]
    assert "alert of run local/lab/whole, WARN: 'too hot'" in (hub.folder / "hub.log").read_text()
    assert read.get("console", [["hello from the run"]] * 2) == [["hello from the run"]] * 2


@pytest.mark.both
def test_history_is_scanned_and_sampled(read: dict[str, Any]) -> None:
    """Whole, by key, by step, and against another axis."""
    run = read["whole"]
    assert [row["loss"] for row in run["scan"] if "loss" in row] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert (len(run["history"]), run["last"], run["beta"]) == (6, 5, 6)
    assert [row["_step"] for row in run["steps"]] == [1, 2]
    assert run["nested"] == [0, 1, 2, 3, 4]
    assert run["axis"] == [{"top1": 0.1, "loss": 1}, {"top1": 0.5, "loss": 0.5}]


@pytest.mark.both
def test_a_resumed_run_goes_on_at_its_step(read: dict[str, Any], logged: str) -> None:
    """resume="allow" and "must" continue the history instead of writing over it."""
    run = read["resumed"]
    assert "starting step 3 True" in logged
    assert "starting step 5 True" in logged
    assert run["scan_x"] == [0, 1, 2, 10, 11, 20]
    assert [row["x"] for row in run["sampled"]] == [0, 20]
    assert (run["state"], run["lines"]) == ("finished", 6)


@pytest.mark.both
def test_what_cannot_be_resumed_is_refused(logged: str, read: dict[str, Any]) -> None:
    """resume="must" without the run, "never" with it, forking and rewinding end in one clear sentence each."""
    must, never = [line for line in logged.splitlines() if line.startswith("REFUSED")]
    assert "(missing)" in must and "(resumed)" in never
    fork, rewind = read["branches"]
    assert "forking a run is not served" in fork and "start a new run" in fork
    assert "rewinding or forking a run is not served" in rewind


def test_ends_are_told_apart(read: dict[str, Any]) -> None:
    """A preempted run is no failed run."""
    assert read["preempted"]["state"] == "preempted"
    assert read["failed"]["state"] == "failed"


@pytest.mark.both
def test_runs_are_listed_filtered_and_sorted(read: dict[str, Any]) -> None:
    """Filters, orders and pages work through wandb.Api; runs without the sorting key come last."""
    assert {tuple(found) for found in read["filtered"].values()} == {("whole",)}
    assert read["listed"] == ["failed", "whole"]
    assert read["sorted"] == ["resumed", "whole", "preempted", "failed"]
    assert read["by_config"] == ["whole", "failed", "preempted", "resumed"]
    assert (read["count"], read["all_at_once"], read["histories"]) == (2, [0.1, None, None, None], 6)
    assert read["projects"].count("lab") == 1  # other tests have projects on the same hub
    assert (read["entity"], read["viewer"], read["reports"]) == ("local", "local", [])


def test_what_is_not_there_is_told(read: dict[str, Any]) -> None:
    """A run, a sweep and a project that do not exist are told as that, not as an error of the server's."""
    run, sweep, project = read["missing"]
    assert "Could not find run" in run and "Could not find sweep" in sweep
    assert "Could not find project none" in project


@pytest.mark.both
def test_the_public_api_edits_and_deletes(read: dict[str, Any]) -> None:
    """Edits of a finished run keep its state, also those that empty a field; a deleted run is gone."""
    run = read["edited"]
    assert (run["tags"], run["name"], run["config"], run["state"]) == (["seen"], "renamed", {"added": 1}, "failed")
    assert (run["notes"], run["summary"]["later"], run["summary"]["nest"]) == ("changed", 2, {"deep": [1]})
    run = read["cleared"]
    assert (run["tags"], run["notes"], run["config"], "later" in run["summary"]) == ([], "", {"added": 1}, False)
    assert read["left"] == 4


def test_runs_wait_for_their_user(read: dict[str, Any]) -> None:
    """A failed run can wait again, a finished one cannot; a run that was made to wait starts with `wandb.init`."""
    assert read["reset"] == [True, "pending"]
    assert "finished and cannot become pending" in read["kept"]
    assert read["made"] == ["pending", "finished", 0]


@pytest.mark.both
def test_a_wrong_key_is_told_in_one_clear_line(hub: HubProcess) -> None:
    """The client shows the hub's own sentence."""
    output = hub.python("import wandb; wandb.init(project='lab')", check=False, WANDB_API_KEY="0" * 40)
    assert "the API key is missing or not known here" in output
    status, answer = hub.post("/graphql", {"query": "{viewer{id}}"}, key="0" * 40)
    assert (status, "WANDB_API_KEY" in answer["errors"][0]["message"]) == (401, True)
