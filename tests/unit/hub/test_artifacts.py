"""Artifacts in the store: versions, aliases, de-duplication, links, files, and what is refused."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from prunefleet.infra.hub.artifacts.api import Artifacts
from prunefleet.infra.hub.artifacts.edits import ArtifactChange
from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.artifacts.run_files import Files
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.store.blobs import Blobs
from prunefleet.infra.hub.store.errors import Conflict, HubError, Invalid, Missing
from prunefleet.infra.hub.store.file_rows import ArtifactRow, ArtifactState, FileOwner
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow

from support.hub import Clock, first_user, local_hub


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@dataclass(frozen=True)
class Shelf:
    """A hub, with a run that logs artifacts as the client does."""

    hub: Hub
    files: Files
    artifacts: Artifacts
    run: RunRow

    @property
    def project(self) -> ProjectRow:
        found = self.hub.records.project(self.run.entity, self.run.project)
        assert found is not None
        return found

    def ask(self, contents: Mapping[str, bytes], name: str = "weights", **more: object) -> ArtifactRow:
        digest = hashlib.md5(repr(sorted(contents.items())).encode()).hexdigest()
        given = {"entity": None, "project": self.run.project, "collection": name, "type": "model", "digest": digest}
        new = NewArtifact(**{**given, "run": self.run.name, **more})  # type: ignore[arg-type]
        return self.artifacts.create(first_user(self.hub), new)

    def upload(self, artifact: ArtifactRow, contents: Mapping[str, bytes], kind: str = "FULL") -> None:
        self.artifacts.expect_manifest(artifact.id, kind, "", None)
        wanted = [(artifact.id, file, md5(content)) for file, content in contents.items()]
        for row in self.artifacts.expect_files(wanted):
            if row.sha256 is None:
                blob = self.files.blobs.put([contents[row.name]], row.md5)
                self.files.keep(FileOwner.ARTIFACT, artifact.id, row.name, blob)
        entries = {file: {"digest": md5(content), "size": len(content)} for file, content in contents.items()}
        self.manifest(artifact, entries)

    def manifest(self, artifact: ArtifactRow, entries: Mapping[str, object]) -> None:
        document = {"version": 1, "storagePolicy": "wandb-storage-policy-v1", "contents": entries}
        blob = self.files.blobs.put([json.dumps(document).encode()])
        self.files.keep(FileOwner.MANIFEST, artifact.id, "wandb_manifest.json", blob)

    def log(self, contents: Mapping[str, bytes], name: str = "weights", **more: object) -> ArtifactRow:
        artifact = self.ask(contents, name, **more)
        if artifact.state is ArtifactState.PENDING:
            self.upload(artifact, contents)
            return self.artifacts.commit(artifact.id)
        return artifact

    def version(self, name: str) -> int | None:
        found = self.artifacts.membership(self.project, name)
        return found.version if found else None


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    clock = Clock()
    with local_hub(tmp_path, clock) as hub:
        blobs = Blobs(tmp_path / "blobs")
        run, _new = hub.begin_run(first_user(hub), RunChange(project="demo", name="run1"))
        yield Shelf(hub, Files(hub.store, blobs, clock), Artifacts(hub.store, blobs, clock), run)


def test_versions_count_up_and_latest_follows(shelf: Shelf) -> None:
    """New content is the next version; `latest`, a version and no alias at all name what they say."""
    shelf.log({"a": b"1"})
    shelf.log({"a": b"2"})
    assert shelf.version("weights:latest") == shelf.version("weights") == shelf.version("weights:v1") == 1
    assert shelf.version("weights:v0") == 0
    assert shelf.version("weights:v2") is None
    assert shelf.version("other:v0") is None


def test_the_same_content_is_the_same_version(shelf: Shelf) -> None:
    """A digest that is a version already gives that version, and the aliases asked for move to it."""
    first = shelf.log({"a": b"1"})
    shelf.log({"a": b"2"})
    again = shelf.log({"a": b"1"}, aliases=["best", "latest"])
    assert (again.id, again.version) == (first.id, 0)
    assert shelf.version("weights:best") == shelf.version("weights:latest") == 0


def test_a_repeated_request_is_the_same_artifact(shelf: Shelf) -> None:
    """A client that asks twice, because an answer was lost, gets one artifact."""
    assert shelf.ask({"a": b"1"}, client_id="c1").id == shelf.ask({"a": b"1"}, client_id="c1").id
    assert shelf.artifacts.id_of_client("c1") == shelf.ask({"a": b"1"}, client_id="c1").id


def test_what_is_not_committed_is_not_listed(shelf: Shelf) -> None:
    """An upload under way, or broken off, is no version, no output and no reason to skip a later one."""
    pending = shelf.ask({"a": b"1"})
    assert pending.version is None
    assert shelf.artifacts.outputs(shelf.run.id) == []
    assert shelf.version("weights") is None
    assert shelf.log({"a": b"1"}).id != pending.id


def test_committing_twice_changes_nothing(shelf: Shelf) -> None:
    """A repeated commit is the same version."""
    artifact = shelf.log({"a": b"1"})
    assert shelf.artifacts.commit(artifact.id) == artifact
    assert [member.version for member in shelf.artifacts.memberships(artifact.collection)] == [0]


def test_size_and_files_are_those_of_the_manifest(shelf: Shelf) -> None:
    """An artifact has its manifest's files, with their sizes; what else was uploaded is dropped."""
    artifact = shelf.ask({"a": b"1"})
    shelf.upload(artifact, {"a": b"12", "sub/b": b"345", "unused": b"6"})
    shelf.manifest(artifact, {"a": {"digest": md5(b"12")}, "sub/b": {"digest": md5(b"345")}})
    committed = shelf.artifacts.commit(artifact.id)
    assert (committed.size, committed.file_count) == (5, 2)
    assert [file.name for file in shelf.artifacts.files(artifact.id)] == ["a", "sub/b"]


def test_a_file_can_be_read_by_name(shelf: Shelf) -> None:
    """`artifact_file` gives the bytes that `collection:alias` and a path name."""
    shelf.log({"profile.json": b"{}"}, name="profile")
    place = (shelf.run.entity, shelf.run.project)
    assert shelf.artifacts.artifact_file(*place, "profile:v0", "profile.json") == b"{}"
    for name, path in (("profile:v0", "other.json"), ("profile:v7", "profile.json"), ("nothing:v0", "profile.json")):
        with pytest.raises(Missing, match="has no file"):
            shelf.artifacts.artifact_file(*place, name, path)
    with pytest.raises(Missing):
        shelf.artifacts.artifact_file("nobody", "demo", "profile:v0", "profile.json")


def test_bytes_the_project_has_are_not_asked_for_again(shelf: Shelf) -> None:
    """A file with the content of one that is here needs no upload, within the project."""
    shelf.log({"a": b"same"})
    other = shelf.ask({"b": b"same"}, name="other")
    (row,) = shelf.artifacts.expect_files([(other.id, "b", md5(b"same"))])
    assert row.sha256 is not None
    elsewhere = shelf.ask({"b": b"same"}, project="elsewhere", run=None)
    (row,) = shelf.artifacts.expect_files([(elsewhere.id, "b", md5(b"same"))])
    assert row.sha256 is None


def test_files_are_answered_in_the_order_asked(shelf: Shelf) -> None:
    """The client pairs answers with questions by their place."""
    artifact = shelf.ask({"a": b"1"})
    names = ["z", "a", "m/n", "b"]
    rows = shelf.artifacts.expect_files([(artifact.id, name, md5(name.encode())) for name in names])
    assert [row.name for row in rows] == names


def test_files_may_be_taken_over_from_an_older_version(shelf: Shelf) -> None:
    """A manifest may name content of an earlier version that is not uploaded again (`new_draft`)."""
    shelf.log({"a": b"old", "b": b"old too"})
    draft = shelf.ask({"c": b"draft"})
    shelf.upload(draft, {"c": b"new"})
    shelf.manifest(draft, {"a": {"digest": md5(b"old")}, "c": {"digest": md5(b"new")}})
    assert shelf.artifacts.commit(draft.id).version == 1
    assert shelf.artifacts.artifact_file(shelf.run.entity, "demo", "weights:v1", "a") == b"old"


def test_an_incremental_manifest_adds_to_its_base(shelf: Shelf) -> None:
    """The version made on top of another has the files of both, also in the manifest that clients read."""
    base = shelf.log({"a": b"1", "b": b"1"})
    added = shelf.ask({"b": b"2"})
    shelf.upload(added, {"b": b"2"})
    shelf.artifacts.expect_manifest(added.id, "INCREMENTAL", "", base.id)
    committed = shelf.artifacts.commit(added.id)
    assert committed.manifest_sha256 is not None
    document = json.loads(shelf.files.blobs.read(committed.manifest_sha256))
    assert document["contents"]["a"]["digest"] == md5(b"1")
    assert shelf.artifacts.artifact_file(shelf.run.entity, "demo", "weights:v1", "a") == b"1"
    assert shelf.artifacts.artifact_file(shelf.run.entity, "demo", "weights:v1", "b") == b"2"


def test_references_are_kept_as_addresses(shelf: Shelf) -> None:
    """A file kept elsewhere is listed with its address, needs no bytes, and has none to read."""
    artifact = shelf.ask({"r": b""})
    shelf.manifest(artifact, {"r": {"digest": "etag", "ref": "s3://bucket/r", "size": 7}})
    committed = shelf.artifacts.commit(artifact.id)
    (file,) = shelf.artifacts.files(committed.id)
    assert (file.ref, file.size, committed.size) == ("s3://bucket/r", 7, 7)


def test_a_manifest_that_names_what_is_not_here_is_refused(shelf: Shelf) -> None:
    """Committing without all files, or without a manifest, makes no version and says what is missing."""
    artifact = shelf.ask({"a": b"1"})
    with pytest.raises(Conflict, match="its manifest was not uploaded"):
        shelf.artifacts.commit(artifact.id)
    shelf.manifest(artifact, {"a": {"digest": md5(b"1")}})
    with pytest.raises(Invalid, match="'a' of the manifest was not uploaded"):
        shelf.artifacts.commit(artifact.id)
    assert shelf.version("weights") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"contents": {"a": 1}}', b'{"contents": {"a": {}}}', b"\xff"])
def test_a_manifest_that_cannot_be_read_is_refused(shelf: Shelf, content: bytes) -> None:
    """Rubbish in place of a manifest is refused in one line."""
    artifact = shelf.ask({"a": b"1"})
    shelf.files.keep(FileOwner.MANIFEST, artifact.id, "wandb_manifest.json", shelf.files.blobs.put([content]))
    with pytest.raises(Invalid, match="manifest: cannot be read"):
        shelf.artifacts.commit(artifact.id)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x"])
def test_no_name_in_an_artifact_climbs(shelf: Shelf, name: str) -> None:
    """Neither a file asked for nor one in a manifest may lead out of a download folder."""
    artifact = shelf.ask({"a": b"1"})
    with pytest.raises(Invalid, match="file name"):
        shelf.artifacts.expect_files([(artifact.id, name, md5(b"1"))])
    shelf.manifest(artifact, {name: {"digest": md5(b"1")}})
    with pytest.raises(Invalid, match="file name"):
        shelf.artifacts.commit(artifact.id)


def test_a_committed_artifact_takes_nothing_more(shelf: Shelf) -> None:
    """Versions do not change: no further file or manifest is accepted."""
    artifact = shelf.log({"a": b"1"})
    with pytest.raises(Conflict, match="committed"):
        shelf.artifacts.expect_files([(artifact.id, "b", md5(b"2"))])
    with pytest.raises(Conflict, match="committed"):
        shelf.manifest(artifact, {})


def test_a_collection_has_one_type(shelf: Shelf) -> None:
    """A name that holds models takes no data set."""
    shelf.log({"a": b"1"})
    with pytest.raises(Conflict, match="holds type 'model', got 'dataset'"):
        shelf.log({"a": b"2"}, type="dataset")


@pytest.mark.parametrize(
    "more",
    [{"name": "a/b"}, {"name": ""}, {"name": ".."}, {"type": "a:b"}, {"aliases": ["v3"]}, {"aliases": ["a/b"]}],
)
def test_impossible_words_are_refused(shelf: Shelf, more: dict[str, object]) -> None:
    """Names, types and aliases that no address could carry, or that read as a version, are refused in one line."""
    with pytest.raises(Invalid, match=r"^artifact (name|type|alias): got .*; ") as refused:
        shelf.log({"a": b"1"}, **more)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_aliases_move_and_go(shelf: Shelf) -> None:
    """An alias names one version: added to another it moves; removed from where it is not, it stays."""
    first, second = shelf.log({"a": b"1"}), shelf.log({"a": b"2"})
    owner = first.collection
    shelf.artifacts.add_aliases(first.id, owner, ["prod", "old"])
    shelf.artifacts.add_aliases(second.id, owner, ["prod"])
    shelf.artifacts.delete_aliases(second.id, owner, ["old"])
    assert (shelf.version("weights:prod"), shelf.version("weights:old")) == (1, 0)
    shelf.artifacts.delete_aliases(first.id, owner, ["old"])
    assert shelf.version("weights:old") is None


def test_words_about_an_artifact_can_change(shelf: Shelf) -> None:
    """Description, metadata and tags change; what is not mentioned stays."""
    artifact = shelf.log({"a": b"1"}, description="first", tags=["x"])
    shelf.artifacts.revise(artifact.id, ArtifactChange(metadata='{"k": 1}', tags_added=["y"], tags_removed=["x"]))
    changed = shelf.artifacts.artifact(artifact.id)
    assert (changed.description, changed.metadata, changed.tags) == ("first", '{"k": 1}', ("y",))


def test_a_link_is_a_version_of_its_own_collection(shelf: Shelf) -> None:
    """A linked artifact counts from v0 in the portfolio, once; a link goes without its artifact."""
    shelf.log({"a": b"1"})
    artifact = shelf.log({"a": b"2"})
    user = first_user(shelf.hub)
    link = shelf.artifacts.link(user, artifact.id, (None, "demo", "shelf"), ["blessed"])
    assert shelf.artifacts.link(user, artifact.id, (None, "demo", "shelf"), []).id == link.id
    assert shelf.version("shelf:blessed") == shelf.version("shelf:latest") == 0
    assert [member.version for member in shelf.artifacts.memberships_of(artifact.id)] == [1, 0]
    shelf.artifacts.unlink(artifact.id, link.collection.id)
    assert shelf.version("shelf:latest") is None
    assert shelf.version("weights:v1") == 1
    with pytest.raises(Conflict, match="delete it instead"):
        shelf.artifacts.unlink(artifact.id, artifact.collection.id)
    with pytest.raises(Conflict, match="another name"):
        shelf.artifacts.link(user, artifact.id, (None, "demo", "weights"), [])


def test_a_deleted_version_is_gone_and_its_number_not_reused(shelf: Shelf) -> None:
    """Deleting asks for a word when aliases point to it; the next version counts on."""
    artifact = shelf.log({"a": b"1"})
    with pytest.raises(Conflict, match=r"aliases point to it \(latest\)"):
        shelf.artifacts.delete(artifact.id, with_aliases=False)
    shelf.artifacts.delete(artifact.id, with_aliases=True)
    with pytest.raises(Missing):
        shelf.artifacts.artifact(artifact.id)
    assert shelf.log({"a": b"1"}).version == 1


def test_inputs_and_outputs_are_remembered(shelf: Shelf) -> None:
    """A run knows what it logged and used, an artifact who used it; the run's end does not take the artifact along."""
    artifact = shelf.log({"a": b"1"})
    user, _new = shelf.hub.begin_run(first_user(shelf.hub), RunChange(project="demo", name="run2"))
    shelf.artifacts.use(user.id, artifact.id)
    shelf.artifacts.use(user.id, artifact.id)
    assert [row.id for row in shelf.artifacts.inputs(user.id)] == [artifact.id]
    assert [row.id for row in shelf.artifacts.outputs(shelf.run.id)] == [artifact.id]
    assert [row.name for row in shelf.artifacts.used_by(artifact.id)] == ["run2"]
    shelf.hub.run_edits.delete(shelf.run.id, with_artifacts=False)
    assert shelf.artifacts.artifact(artifact.id).run_id is None


def test_a_run_can_go_with_its_artifacts(shelf: Shelf) -> None:
    """Deleting a run's artifacts takes its own alone, committed or not, and their aliases."""
    shelf.log({"a": b"1"})
    shelf.ask({"a": b"half"})
    other = shelf.log({"a": b"2"}, run=None)
    shelf.hub.run_edits.delete(shelf.run.id, with_artifacts=True)
    assert [member.artifact_id for member in shelf.artifacts.memberships(other.collection)] == [other.id]
    assert shelf.version("weights:latest") == 1


def test_collections_are_listed_renamed_retyped_and_deleted(shelf: Shelf) -> None:
    """Types and collections are what was logged; a name that is taken is refused."""
    first = shelf.log({"a": b"1"}).collection
    second = shelf.log({"a": b"2"}, name="data", type="dataset").collection
    assert [row.name for row in shelf.artifacts.types(shelf.project)] == ["dataset", "model"]
    assert [row.name for row in shelf.artifacts.collections(shelf.project, "model")] == ["weights"]
    assert shelf.artifacts.revise_collection(first.id, "renamed", "words").description == "words"
    assert shelf.version("renamed:v0") == 0
    with pytest.raises(Conflict, match="is taken"):
        shelf.artifacts.revise_collection(second.id, "renamed", None)
    assert shelf.artifacts.retype_collection(second.id, "model").type == "model"
    assert shelf.artifacts.tag_collection(second, ["t"], ()).tags == ("t",)
    shelf.artifacts.delete_collection(first.id)
    assert [row.name for row in shelf.artifacts.collections(shelf.project)] == ["data"]


def test_run_files_are_listed_replaced_and_deleted(shelf: Shelf) -> None:
    """A file uploaded again replaces the first; names and patterns select; a file of another project is left alone."""
    for name, content in (("config.yaml", b"1"), ("media/a.png", b"2"), ("config.yaml", b"33")):
        shelf.files.keep(FileOwner.RUN, shelf.run.id, name, shelf.files.blobs.put([content]))
    assert [(file.name, file.size) for file in shelf.files.listed(shelf.run.id)] == [
        ("config.yaml", 2),
        ("media/a.png", 1),
    ]
    assert [file.name for file in shelf.files.listed(shelf.run.id, pattern="media/%")] == ["media/a.png"]
    (file,) = shelf.files.listed(shelf.run.id, ["config.yaml"])
    assert shelf.files.read(shelf.run.id, "config.yaml") == b"33"
    shelf.files.delete([file.id], project_id=shelf.project.id + 1)
    assert shelf.files.count(shelf.run.id) == 2
    shelf.files.delete([file.id], project_id=shelf.project.id)
    assert shelf.files.count(shelf.run.id) == 1
    with pytest.raises(Missing):
        shelf.files.read(shelf.run.id, "config.yaml")


def test_files_for_what_is_gone_are_refused(shelf: Shelf) -> None:
    """Bytes for a deleted run or artifact find no place."""
    blob = shelf.files.blobs.put([b"late"])
    for owner in FileOwner:
        with pytest.raises(HubError):
            shelf.files.keep(owner, 999, "x", blob)


def test_all_is_there_after_a_restart(shelf: Shelf, tmp_path: Path) -> None:
    """Versions, aliases and bytes survive the end of the process."""
    shelf.log({"a": b"kept"}, aliases=["best"])
    shelf.hub.store.close()
    with local_hub(tmp_path, Clock()) as hub:
        artifacts = Artifacts(hub.store, Blobs(tmp_path / "blobs"))
        assert artifacts.artifact_file(shelf.run.entity, "demo", "weights:best", "a") == b"kept"
