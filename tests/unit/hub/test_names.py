"""Names that clients choose: none leads out of a folder, here or at a client that downloads, and none breaks a page."""

import json
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prunefleet.infra.hub.artifacts.manifests import parse
from prunefleet.infra.hub.artifacts.names import check_file, check_word
from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.hub.store.file_rows import FileOwner

from support.access import ADMIN, World
from support.hub import Clock, local_hub

PIECES = ["..", ".", "", "a", "b.txt", "\\", "..\\", "C:", "~", "%2e%2e", "%2f", "\x00", "\n", "ü", "\u202e", "\ud800"]
PIECES += ["con", "<script>", "'", '"', " ", "a" * 300, "\uff0e\uff0e", "\u2215", "*", "|", "$(x)", "-rf"]
NAME = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=5).flatmap(
    lambda parts: st.sampled_from(["/", "", "\\"]).map(lambda joint: joint.join(parts))
)
RELAXED = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with local_hub(tmp_path_factory.mktemp("names") / "data", Clock()) as hub:
        made = World(hub)
        made.make(ADMIN)
        yield made


def stays(name: str) -> bool:
    """Whether a name, taken as a path below a folder on any system, stays there."""
    for kind, root in ((PurePosixPath, "/f"), (PureWindowsPath, "C:\\f")):
        path = kind(root) / name
        parts = path.parts[len(kind(root).parts) :]
        if path.parts[: len(kind(root).parts)] != kind(root).parts or ".." in parts or not parts:
            return False
    return "\x00" not in name


@given(name=NAME)
@example(name="a\\..\\..\\b")
@example(name="C:b")
@example(name="//host/share")
def test_a_file_name_that_is_taken_stays_below_its_folder(name: str) -> None:
    """Whatever `check_file` lets through leads nowhere else, on POSIX and on Windows."""
    try:
        check_file(name)
    except Invalid as error:
        assert str(error).isascii()
        assert "\n" not in str(error)
        return
    assert stays(name)


@given(name=NAME)
def test_an_artifact_s_name_that_is_taken_is_one_part(name: str) -> None:
    """Names, types and aliases are one part of a path, for the client makes folders of them."""
    try:
        check_word("name", name)
    except Invalid as error:
        assert "\n" not in str(error)
        return
    assert stays(name)
    assert "/" not in name


@given(name=NAME)
def test_a_manifest_brings_no_name_that_climbs(name: str) -> None:
    """A manifest is the client's own file: its names are held to the same rule."""
    content = {"version": 1, "storagePolicy": "p", "storagePolicyConfig": {}, "contents": {name: {"digest": "d"}}}
    try:
        found = parse(json.dumps(content).encode())
    except Invalid:
        return
    assert all(stays(each) for each in found.entries)


@RELAXED
@given(name=NAME)
def test_a_run_s_file_lands_where_it_belongs(world: World, name: str) -> None:
    """Uploaded under any name, a file is found under that name alone, and the data folder holds blobs by content."""
    text = "mutation($i: CreateRunFilesInput!) { createRunFiles(input: $i) { files { uploadUrl } } }"
    given = {"projectName": f"{ADMIN}-project", "runName": f"{ADMIN}-run", "files": [name]}
    asked = world.request(ADMIN, "POST", "/graphql", content=json.dumps({"query": text, "variables": {"i": given}}))
    assert asked.status_code in (200, 400), asked.text
    if asked.status_code == 200:
        url = asked.json()["data"]["createRunFiles"]["files"][0]["uploadUrl"]
        assert world.request(None, "PUT", url, content=name.encode()).status_code == 200
        found = world.hub.files.listed(1, [name])
        assert [file.name for file in found] == [name]
        assert stays(name)
    folder = world.hub.store.folder
    made = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
    assert made <= {"hub.db", "hub.db-wal", "hub.db-shm", "secret", "lock", "blobs"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert all(len(path.name) == 64 for path in (folder / "blobs").rglob("*") if path.is_file())


@RELAXED
@given(project=NAME, run=NAME)
def test_any_project_and_run_name_is_taken_whole_or_refused(world: World, project: str, run: str) -> None:
    """A project or run of any name is refused in one line, or has a page at its address that says its name."""
    text = "mutation($i: UpsertBucketInput!) { upsertBucket(input: $i) { bucket { name project { name } } } }"
    given = {"modelName": project, "name": run, "host": "h"}
    asked = world.request(ADMIN, "POST", "/graphql", content=json.dumps({"query": text, "variables": {"i": given}}))
    assert asked.status_code in (200, 400), asked.text
    if asked.status_code == 400:
        message = asked.json()["errors"][0]["message"]
        assert "\n" not in message
        return
    bucket = asked.json()["data"]["upsertBucket"]["bucket"]
    assert bucket["name"] == run
    assert stays(bucket["name"])
    assert stays(bucket["project"]["name"])
    parts = [quote(part, safe="") for part in (ADMIN, bucket["project"]["name"], "runs", run)]
    assert world.request(ADMIN, "GET", "/" + "/".join(parts)).status_code == 200
    world.hub.run_edits.delete(
        max(each.id for each in world.hub.records.runs(ADMIN, bucket["project"]["name"])), with_artifacts=False
    )


@settings(RELAXED, max_examples=20)
@given(path=st.lists(st.sampled_from([*PIECES, "etc", "passwd", "hub.db", "secret"]), max_size=6).map("/".join))
@pytest.mark.parametrize("root", ["/static", "/download", "/artifactsV2", "/upload", "/files", ""])
def test_no_address_reads_a_file_of_the_server(world: World, root: str, path: str) -> None:
    """Whatever stands in an address, no answer holds the secret, the database or a file of the machine."""
    sent = path.encode("utf-8", "replace").decode()
    for encoded in (quote(sent), quote(sent, safe=""), quote(quote(sent, safe=""))):
        answer = world.request(ADMIN, "GET", f"{root}/{encoded}", headers={"accept": "*/*"})
        assert answer.status_code < 500, (encoded, answer.text)
        assert b"SQLite format 3" not in answer.content
        assert world.hub.store.folder.joinpath("secret").read_bytes() not in answer.content
        assert b"root:x:" not in answer.content


def test_download_addresses_end_in_the_last_part_of_a_name(world: World) -> None:
    """The end of an address is only the file's own name, so a browser saves it as that."""
    run = world.hub.records.run(ADMIN, f"{ADMIN}-project", f"{ADMIN}-run")
    assert run is not None
    world.hub.files.keep(FileOwner.RUN, run.id, "deep/er/na me.txt", world.hub.files.blobs.put([b"x"]))
    files = 'files(names: ["deep/er/na me.txt"]) { edges { node { directUrl } } }'
    text = f'{{ project(name: "{ADMIN}-project") {{ run(name: "{ADMIN}-run") {{ {files} }} }} }}'
    answer: Any = world.ask(ADMIN, text).json()
    url = answer["data"]["project"]["run"]["files"]["edges"][0]["node"]["directUrl"]
    assert urlsplit(url).path.endswith("/na%20me.txt")
    disposition = world.request(None, "GET", url).headers["content-disposition"]
    assert (disposition.startswith("attachment"), "deep" in disposition) == (True, False)
