"""Artifacts through the unmodified wandb client: log, use, download, alias, list, link, delete, sync."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clients import Client
from support.hub import HubProcess
from support.wait import wait_for

LOGGER = """
import json, os, pathlib, wandb
def artifact(name, kind, files, **more):
    made = wandb.Artifact(name, type=kind, **more)
    for path, text in files.items():
        with made.new_file(path) as file:
            file.write(text)
    return made
def show(**what):
    print("SHOWN " + json.dumps(what))
quiet = wandb.Settings(console="off", x_disable_stats=True, silent=True)
"""


def shown(output: str) -> dict[str, Any]:
    """What a program has shown, all lines together."""
    lines = [line.removeprefix("SHOWN ") for line in output.splitlines() if line.startswith("SHOWN ")]
    return {key: value for line in lines for key, value in json.loads(line).items()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, wandb_client: Client) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("artifacts"), client=wandb_client) as process:
        yield process


@pytest.mark.both
def test_log_use_and_download_in_a_run(hub: HubProcess) -> None:
    """A run logs versions and uses them by alias, version and full path; the same content is the same version."""
    said = shown(
        hub.python(
            LOGGER
            + """
with wandb.init(project="log", settings=quiet) as run:
    first = run.log_artifact(artifact("weights", "model", {"a.txt": "1", "sub/b.txt": "b"}), aliases=["best"]).wait()
    again = run.log_artifact(artifact("weights", "model", {"a.txt": "1", "sub/b.txt": "b"})).wait()
    second = run.log_artifact(artifact("weights", "model", {"a.txt": "2", "sub/b.txt": "b"})).wait()
    show(first=first.version, again=again.version, second=second.version, same=first.id == again.id)
    folder = pathlib.Path(run.use_artifact("weights:best").download(root="best"))
    show(best={str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.txt")})
    show(latest=pathlib.Path(run.use_artifact("weights:latest").get_entry("a.txt").download(root="latest")).read_text())
    show(full=run.use_artifact(f"{run.entity}/{run.project}/weights:v0", type="model").version)
    run.log_artifact(artifact("one", "dataset", {"only.txt": "alone"})).wait()
    show(file=pathlib.Path(run.use_artifact("one:v0").file(root="one")).read_text())
run = wandb.Api().run(f"log/{run.id}")
show(logged=[a.name for a in run.logged_artifacts()], used=[a.name for a in run.used_artifacts()])
show(creator=wandb.Api().artifact("log/weights:v0").logged_by().id == run.id)
show(users=[r.id == run.id for r in wandb.Api().artifact("log/weights:v1").used_by()])
"""
        )
    )
    assert (said["first"], said["again"], said["second"], said["same"]) == ("v0", "v0", "v1", True)
    assert said["best"] == {"a.txt": "1", "sub/b.txt": "b"}
    assert (said["latest"], said["full"], said["file"]) == ("2", "v0", "alone")
    assert said["logged"] == ["weights:v0", "weights:v1", "one:v0"]
    assert sorted(said["used"]) == ["one:v0", "weights:v0", "weights:v1"]
    assert said["creator"] is True
    assert said["users"] == [True]


def test_aliases_words_and_listings(hub: HubProcess) -> None:
    """What `wandb.Api` lists and changes: aliases, description, metadata, tags; versions, collections, types."""
    said = shown(
        hub.python(
            LOGGER
            + """
with wandb.init(project="words", settings=quiet) as run:
    for text in "123":
        run.log_artifact(artifact("weights", "model", {"a.txt": text}, metadata={"n": int(text)})).wait()
    run.log_artifact(artifact("data", "dataset", {"d.txt": "d"}), aliases=["raw"]).wait()
api = wandb.Api()
first = api.artifact("words/weights:v0")
first.aliases += ["prod", "old"]
first.description, first.metadata["k"], first.tags = "new words", [1], ["t1", "t2"]
first.save()
first.aliases.remove("old")
first.save()
fresh = wandb.Api()
read = fresh.artifact("words/weights:prod")
show(read=[read.version, sorted(read.aliases), read.description, read.metadata, sorted(read.tags)])
show(facts=[read.type, read.size, read.file_count])
show(exists=[fresh.artifact_exists(f"words/{n}") for n in ("weights:prod", "weights:old", "weights:v9", "no:v0")])
show(versions=[(a.name, a.aliases) for a in fresh.artifacts("model", "words/weights")])
show(paged=[a.name for a in fresh.artifacts("model", "words/weights", per_page=1)])
show(tagged=[a.name for a in fresh.artifacts("model", "words/weights", tags=["t1"])])
show(types=[t.name for t in fresh.artifact_types("words")])
show(collections=[c.name for c in fresh.artifact_type("model", "words").collections()])
show(aliases=sorted(fresh.artifact_collection("model", "words/weights").aliases))
show(filtered=[c.name for c in fresh.project("words").collections(filters={"name": {"$regex": "^da"}})])
try:
    fresh.artifact("words/weights:nothing")
except Exception as error:
    show(missing=str(error))
"""
        )
    )
    assert said["read"] == ["v0", ["prod"], "new words", {"n": 1, "k": [1]}, ["t1", "t2"]]
    assert said["facts"] == ["model", 1, 1]
    assert said["exists"] == [True, False, False, False]
    assert said["versions"] == [["weights:v2", ["latest"]], ["weights:v1", []], ["weights:v0", ["prod"]]]
    assert said["paged"] == ["weights:v2", "weights:v1", "weights:v0"]
    assert said["tagged"] == ["weights:v0"]
    assert said["types"] == ["dataset", "model"]
    assert said["collections"] == ["weights"]
    assert said["aliases"] == ["latest", "prod"]
    assert said["filtered"] == ["data"]
    assert "weights:nothing" in said["missing"]


def test_tables_links_drafts_and_references(hub: HubProcess) -> None:
    """A logged table is an artifact that reads back; versions can be linked, drafted from, referenced and deleted."""
    said = shown(
        hub.python(
            LOGGER
            + """
with wandb.init(project="more", settings=quiet) as run:
    run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
    base = run.log_artifact(artifact("weights", "model", {"a.txt": "1", "b.txt": "2"})).wait()
    draft = base.new_draft()
    draft.remove("a.txt")
    with draft.new_file("c.txt") as file:
        file.write("3")
    run.log_artifact(draft).wait()
    outside = pathlib.Path("outside.txt")
    outside.write_text("kept elsewhere")
    pointing = wandb.Artifact("pointing", type="dataset")
    pointing.add_reference(outside.resolve().as_uri())
    pointing.add_reference(base.get_entry("b.txt"), name="b.txt")
    run.log_artifact(pointing).wait()
    late = artifact("late", "model", {"l.txt": "l"})
    run.link_artifact(run.log_artifact(late), "shelf", aliases=["blessed"])
api = wandb.Api()
table = next(a for a in api.run(f"more/{run.id}").logged_artifacts() if a.type == "run_table")
show(table=table.get("table").data)
folder = pathlib.Path(api.artifact("more/weights:latest").download(root="draft"))
show(draft=sorted(p.name for p in folder.iterdir()))
folder = pathlib.Path(api.artifact("more/pointing:v0").download(root="pointing"))
show(pointing={p.name: p.read_text() for p in folder.iterdir()})
linked = api.artifact("more/shelf:blessed")
show(linked=[linked.source_name, linked.is_link, linked.version])
weights = api.artifact("more/weights:v1")
try:
    weights.delete()
except Exception as error:
    show(refused=str(error))
weights.delete(delete_aliases=True)
linked.unlink()
show(left=[wandb.Api().artifact_exists(f"more/{n}") for n in ("weights:v0", "weights:v1", "shelf:blessed", "late:v0")])
"""
        )
    )
    assert said["table"] == [[1, "x"], [2, "y"]]
    assert said["draft"] == ["b.txt", "c.txt"]
    assert said["pointing"] == {"outside.txt": "kept elsewhere", "b.txt": "2"}
    assert said["linked"] == ["late:v0", True, "v0"]
    assert "delete_aliases=True" in said["refused"]
    assert said["left"] == [True, False, False, True]


def test_offline_runs_are_synced_with_their_artifacts(hub: HubProcess, tmp_path: Path) -> None:
    """One `wandb sync` of several offline runs brings each one's artifact and files; once more changes nothing."""
    code = (
        LOGGER
        + """
for number in range(3):
    with wandb.init(project="offline", id=f"off{number}", settings=quiet, group="g", config={"n": number}) as run:
        for step in range(4):
            run.log({"x": number * 10 + step})
        run.log({"table": wandb.Table(columns=["a"], data=[[number]])})
        made, path = wandb.Artifact("kept", type="model"), pathlib.Path(f"kept-{number}.txt")
        path.write_text(f"offline {number}")
        made.add_file(str(path), name="a.txt")
        run.log_artifact(made, aliases=[f"of{number}"])
"""
    )
    hub.python(code, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    folders = [str(path) for path in sorted((tmp_path / "wandb").glob("offline-run-*"))]
    assert len(folders) == 3
    hub.wandb("sync", *folders)
    hub.wandb("sync", folders[0], "--include-synced")
    said = shown(
        hub.python(
            LOGGER
            + """
runs = list(wandb.Api().runs("offline", order="+config.n", lazy=False))
show(runs=[[run.id, run.state, run.config["n"], run.group, run.summary["x"]] for run in runs])
show(rows=[[row["x"] for row in run.scan_history(keys=["x"])] for run in runs])
show(logged=[sorted(a.type for a in run.logged_artifacts()) for run in runs], files=[f.name for f in runs[0].files()])
kept = wandb.Api().artifacts("model", "offline/kept")
show(kept=sorted(alias for one in kept for alias in one.aliases), count=len(list(kept)))
show(text=pathlib.Path(wandb.Api().artifact("offline/kept:of1").file(root="kept")).read_text())
"""
        )
    )
    assert said["runs"] == [[f"off{n}", "finished", n, "g", n * 10 + 3] for n in range(3)]
    assert said["rows"] == [[n * 10 + step for step in range(4)] for n in range(3)]
    assert said["logged"] == [["model", "run_table"]] * 3
    assert said["kept"] == ["latest", "of0", "of1", "of2"]
    assert (said["count"], said["text"]) == (3, "offline 1")
    assert "config.yaml" in said["files"]


def test_an_upload_survives_a_kill_of_the_hub(tmp_path: Path, wandb_client: Client) -> None:
    """A hub killed while bytes arrive leaves no half of a file; started again, it gets the whole artifact."""
    code = (
        LOGGER
        + """
with wandb.init(project="kill", settings=quiet) as run:
    made = wandb.Artifact("big", type="model")
    for number in range(6):
        with made.new_file(f"{number}.bin", mode="wb") as file:
            file.write(bytes([number]) * (8 << 20))
    run.log_artifact(made).wait()
folder = pathlib.Path(wandb.Api().artifact("kill/big:v0").download(root="big", skip_cache=True))
show(files=[len(set(path.read_bytes())) * path.stat().st_size for path in sorted(folder.iterdir())])
"""
    )
    with HubProcess(tmp_path, client=wandb_client) as hub:
        drafts = tmp_path / "hub" / "blobs" / "drafts"
        process = hub.popen(str(wandb_client.python), "-c", code)
        wait_for(lambda: drafts.exists() and any(drafts.iterdir()), every=0.002)
        hub.kill9()
        hub.restart()
        output, _ = process.communicate(timeout=100)
        assert shown(output)["files"] == [8 << 20] * 6
        assert list(drafts.iterdir()) == []
        stored = [path for path in (tmp_path / "hub" / "blobs").rglob("*") if path.is_file()]
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in stored)


def test_what_is_not_served_is_refused_in_a_line(hub: HubProcess) -> None:
    """Distributed artifacts and collections of another type end in one clear line for the user."""
    said = shown(
        hub.python(
            LOGGER
            + """
with wandb.init(project="refuse", settings=quiet) as run:
    run.log_artifact(artifact("weights", "model", {"a.txt": "1"})).wait()
    for name, options in {"d": {"distributed_id": "x"}, "weights": {}}.items():
        log = run.upsert_artifact if options else run.log_artifact
        try:
            log(artifact(name, "dataset", {"a.txt": "1"}), **options).wait()
        except Exception as error:
            show(**{name: str(error)})
"""
        )
    )
    assert "no distributed artifacts" in said["d"]
    assert "model" in said["weights"]
