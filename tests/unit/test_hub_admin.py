"""What an administrator may do: people and keys, check, backup and restore, gc."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_hub import Clock, command, first_user, local_hub, make_sweep, post, served

from infra.hub import store_keys, store_rows
from infra.hub.admin import Admin
from infra.hub.artifact_log import NewArtifact
from infra.hub.backup import backup, restore
from infra.hub.check import check
from infra.hub.errors import Conflict, Invalid, Missing, StartupError
from infra.hub.file_rows import ArtifactRow, FileOwner
from infra.hub.rows import SweepState
from infra.hub.runs import RunChange, StreamPost
from infra.hub.service import Hub
from infra.hub.store import Store
from infra.hub.store_lines import Stream
from infra.hub.sweeps import SweepChange

DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(tmp_path: Path, clock: Clock) -> Iterator[Hub]:
    with local_hub(tmp_path / "hub", clock) as hub:
        yield hub


@pytest.fixture
def admin(hub: Hub) -> Admin:
    hub.auth.ensure_first_user()
    return Admin(hub)


def key_ids(admin: Admin, owner: str) -> list[str]:
    return [key["id"] for key in admin.perform("keys.list", {"username": owner})["keys"]]


def test_a_revoked_key_ends_at_once(admin: Admin, hub: Hub) -> None:
    """A key that was in use a moment ago is nobody's after it was revoked; the user's other key goes on."""
    first = admin.perform("users.add", {"username": "ann"})["api_key"]
    second = admin.perform("keys.add", {"username": "ann"})["api_key"]
    assert (hub.user_of_key(first), hub.user_of_key(second)) == ("ann", "ann")
    digest = hub.auth._hash(first)
    admin.perform("keys.revoke", {"id": digest[: store_keys.ID_LENGTH]})
    assert (hub.user_of_key(first), hub.user_of_key(second)) == (None, "ann")
    assert key_ids(admin, "ann") == [hub.auth._hash(second)[: store_keys.ID_LENGTH]]


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    admin: Admin, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that began before the revocation does not keep the key alive after it."""
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    real = store_rows.user_with_key

    def slow(connection: Any, digest: str) -> Any:
        found = real(connection, digest)
        monkeypatch.undo()
        admin.perform("keys.revoke", {"id": digest})
        return found

    monkeypatch.setattr(store_rows, "user_with_key", slow)
    hub.user_of_key(key)
    assert hub.user_of_key(key) is None


def test_revoking_ends_what_was_signed_in(admin: Admin, hub: Hub, clock: Clock) -> None:
    """Sign-ins to the pages of a key's owner end with the key; a later one is good, and others' stay."""
    admin.perform("users.add", {"username": "ann"})
    cookies = {name: hub.session_of(name, 9999) for name in ("ann", "local")}
    ticket = hub.ticket_for("ann")
    clock.pass_by(5)
    admin.perform("keys.revoke", {"id": key_ids(admin, "ann")[0]})
    assert (hub.user_of_session(cookies["ann"]), hub.user_of_ticket(ticket)) == (None, None)
    assert hub.user_of_session(cookies["local"]) == "local"
    clock.pass_by(5)
    assert hub.user_of_session(hub.session_of("ann", 9999)) == "ann"


@pytest.mark.parametrize("key_id", ["", "abc", "f" * 64, "%", None, 7])
def test_only_one_known_key_can_be_revoked(admin: Admin, key_id: object) -> None:
    """An id that names no key, or could name several, revokes nothing."""
    with pytest.raises((Missing, Invalid), match=r"key|id"):
        admin.perform("keys.revoke", {"id": key_id})
    assert len(key_ids(admin, "local")) == 1


def test_keys_show_their_last_use(admin: Admin, hub: Hub, clock: Clock) -> None:
    """A list tells when each key was last used, never the key; between lists it is written once a minute at most."""
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    (shown,) = admin.perform("keys.list", {"username": "ann"})["keys"]
    assert shown["last_used_at"] is None
    commits = hub.changes
    for _ in range(100):
        clock.pass_by(1)
        hub.user_of_key(key)
        hub.auth.note_uses()
    assert hub.changes - commits <= 2
    (shown,) = admin.perform("keys.list", {"username": "ann"})["keys"]
    assert shown["last_used_at"] == clock.now
    assert key not in json.dumps(admin.perform("keys.list", {}))


def test_a_removed_user_s_runs_stay(admin: Admin, hub: Hub, clock: Clock) -> None:
    """Keys and sign-ins end, what was made stays under the name; made again, the user has it all."""
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    user = hub.auth.user_of(key)
    assert user is not None
    hub.begin_run(user, RunChange(project="demo", name="r", host="h"))
    cookie = hub.session_of("ann", 9999)
    assert admin.perform("users.remove", {"username": "ann"})["lines"] == ["removed ann: 1 keys revoked, 1 runs stay"]
    assert (hub.user_of_key(key), hub.user_of_session(cookie)) == (None, None)
    assert hub.run("ann", "demo", "r") is not None
    with pytest.raises(Missing):
        admin.perform("users.remove", {"username": "ann"})
    with pytest.raises(Missing):
        admin.perform("keys.add", {"username": "ann"})
    clock.pass_by(1)
    again = admin.perform("users.add", {"username": "ann"})["api_key"]
    assert hub.user_of_key(again) == "ann"
    assert [(each["username"], each["removed_at"]) for each in admin.perform("users.list", {})["users"]] == [
        ("local", None),
        ("ann", None),
    ]


def test_a_user_without_anything_is_forgotten(admin: Admin) -> None:
    """Who owns nothing leaves no row behind."""
    admin.perform("users.add", {"username": "ann"})
    admin.perform("users.remove", {"username": "ann"})
    assert [each["username"] for each in admin.perform("users.list", {})["users"]] == ["local"]


def test_a_user_is_added_once(admin: Admin) -> None:
    """A second `users add` of a name is refused with what to do."""
    with pytest.raises(Conflict, match="keys add local"):
        admin.perform("users.add", {"username": "local"})


def test_the_hub_is_never_without_a_way_in(admin: Admin, hub: Hub) -> None:
    """When the last user was removed, the next start makes the first user's key again."""
    admin.perform("users.remove", {"username": "local"})
    key = hub.auth.ensure_first_user()
    assert key is not None
    assert hub.user_of_key(key) == "local"


def test_the_endpoint_wants_the_admin_token(hub: Hub) -> None:
    """A user's key or a wrong token administrates nothing; an unknown operation is told."""
    with served(hub, "token") as url:
        assert post(f"{url}/admin/perform/users.list", {}, {"Authorization": "Bearer wrong"})[0] == 401
        assert post(f"{url}/admin/perform/users.list", {}, {})[0] == 401
        good = {"Authorization": "Bearer token"}
        assert post(f"{url}/admin/perform/users.list", {}, good) == (200, {"users": []})
        status, answer = post(f"{url}/admin/perform/frob", {}, good)
        assert (status, "use one of users.list" in answer["error"]) == (404, True)


# Files


def put_file(hub: Hub, run: str, name: str, content: bytes) -> str:
    user = first_user(hub)
    row, _ = hub.begin_run(user, RunChange(project="demo", name=run, host="h"))
    blob = hub.files.blobs.put([content])
    hub.files.keep(FileOwner.RUN, row.id, name, blob)
    return blob.sha256


def log_artifact(hub: Hub, content: bytes, *, finish: bool = True) -> ArtifactRow:
    """An artifact `model` with one file `w`."""
    md5 = hub.files.blobs.put([content]).md5
    new = NewArtifact(None, "demo", "model", "model", hashlib.sha256(content).hexdigest(), client_id=None)
    artifact = hub.artifacts.create(first_user(hub), new)
    hub.artifacts.expect_files([(artifact.id, "w", md5)])
    hub.files.keep(FileOwner.ARTIFACT, artifact.id, "w", hub.files.blobs.put([content]))
    if not finish:
        return artifact
    hub.artifacts.expect_manifest(artifact.id, "FULL", "", None)
    manifest = json.dumps({"contents": {"w": {"digest": md5, "size": len(content)}}}).encode()
    hub.files.keep(FileOwner.MANIFEST, artifact.id, "m", hub.files.blobs.put([manifest]))
    return hub.artifacts.commit(artifact.id)


def age(hub: Hub, days: float = 1.0) -> None:
    """Make every stored file look as if it had been uploaded long ago."""
    for path in hub.files.blobs.folder.glob("??/*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def has(hub: Hub, sha256: str) -> bool:
    try:
        return hub.files.blobs.path(sha256).is_file()
    except Missing:
        return False


def test_check_finds_what_is_missing_damaged_and_left_over(admin: Admin, hub: Hub) -> None:
    """A whole hub has no problems; a file that is gone or changed is one each, one nobody refers to is counted."""
    put_file(hub, "r", "a", b"aaa")
    log_artifact(hub, b"weights")
    hub.files.blobs.put([b"orphan"])
    whole = check(hub.store.folder)
    assert (whole.problems, whole.files, whole.orphans, whole.orphan_bytes) == ((), 3, 1, 6)
    gone, changed = put_file(hub, "r", "b", b"bbb"), put_file(hub, "r", "c", b"ccc")
    hub.files.blobs.path(gone).unlink()
    hub.files.blobs.path(changed).write_bytes(b"ccd")
    answer = admin.perform("check", {})
    assert answer["problems"] == 2
    assert answer["lines"][:2] == [f"file {gone}: its bytes are gone", f"file {changed}: its bytes are damaged"]


def test_gc_removes_only_what_nothing_refers_to(admin: Admin, hub: Hub) -> None:
    """A dry run tells what the run then does: old files without a row go; fresh ones and referenced ones stay."""
    kept, replaced = put_file(hub, "r", "b", b"kept"), put_file(hub, "r", "a", b"old content")
    log_artifact(hub, b"weights")
    put_file(hub, "r", "a", b"new content")
    age(hub)
    fresh = hub.files.blobs.put([b"on its way"]).sha256
    told = admin.perform("gc", {"dry_run": True})
    assert has(hub, replaced)
    done = admin.perform("gc", {})
    assert (told["files"], told["file_bytes"]) == (done["files"], done["file_bytes"]) == (1, len(b"old content"))
    assert (has(hub, kept), has(hub, replaced), has(hub, fresh)) == (True, False, True)
    assert not check(hub.store.folder).problems


def test_a_file_that_is_uploaded_again_while_gc_runs_stays(hub: Hub) -> None:
    """Between being found unused and being removed a file may arrive once more: it is not lost."""
    sha256 = hub.files.blobs.put([b"again"]).sha256
    age(hub)
    before = time.time() - 3600
    hub.files.blobs.put([b"again"])
    assert hub.files.blobs.remove(sha256, before) is None
    assert has(hub, sha256)


def test_gc_forgets_artifacts_that_were_never_finished(admin: Admin, hub: Hub, clock: Clock) -> None:
    """One that got nothing for a week goes with its files; one at work and finished ones stay."""
    finished = log_artifact(hub, b"finished")
    abandoned = log_artifact(hub, b"abandoned", finish=False)
    clock.pass_by(8 * DAY)
    at_work = log_artifact(hub, b"at work", finish=False)
    age(hub)
    told, done = admin.perform("gc", {"dry_run": True}), admin.perform("gc", {})
    assert {**told, "lines": 0, "dry_run": 0} == {**done, "lines": 0, "dry_run": 0}
    assert (done["artifacts"], done["files"]) == (1, 1)
    with pytest.raises(Missing):
        hub.artifacts.artifact(abandoned.id)
    assert hub.artifacts.artifact(at_work.id)
    assert hub.artifacts.artifact_file("local", "demo", f"model:v{finished.version}", "w") == b"finished"


def test_gc_removes_old_runs_where_that_is_asked(admin: Admin, hub: Hub, clock: Clock) -> None:
    """Ended runs older than the days given go with lines and files; running ones and those of an open sweep stay."""
    for name in ("old", "open"):
        sha256 = put_file(hub, name, "f", name.encode())
    assert sha256
    hub.stream("local", "demo", "old", StreamPost(lines={Stream.HISTORY: (0, ['{"a": 1}'])}, complete=True))
    sweep = make_sweep(hub)
    hub.begin_run(first_user(hub), RunChange(project="demo", name="swept", sweep=sweep.name, host="h"))
    hub.stream("local", "demo", "swept", StreamPost(complete=True))
    clock.pass_by(40 * DAY)
    age(hub)
    assert admin.perform("gc", {})["runs"] == 0
    assert admin.perform("gc", {"runs_older_than": 50})["runs"] == 0
    told, done = (admin.perform("gc", {"runs_older_than": 30, "dry_run": dry}) for dry in (True, False))
    assert {**told, "lines": 0, "dry_run": 0} == {**done, "lines": 0, "dry_run": 0}
    assert (done["runs"], done["run_bytes"], done["files"]) == (1, 8, 1)
    assert [run.name for run in hub.runs("local", "demo")] == ["open", "swept"]
    hub.revise_sweep(sweep.id, SweepChange(state=SweepState.FINISHED.value))
    assert admin.perform("gc", {"runs_older_than": 30})["runs"] == 1


@pytest.mark.parametrize("days", ["x", -1, True, 1e9])
def test_days_are_days(admin: Admin, days: object) -> None:
    """What is no number of days is refused, and nothing goes."""
    with pytest.raises(Invalid, match=r"runs_older_than: got .*; give days"):
        admin.perform("gc", {"runs_older_than": days})


def test_backup_check_and_gc_take_turns(admin: Admin, tmp_path: Path) -> None:
    """While one is at work another is refused: gc must not take files that a backup is about to copy."""
    with admin._alone(), pytest.raises(Conflict, match="is under way"):
        admin.perform("backup", {"target": str(tmp_path / "copy")})
    assert not (tmp_path / "copy").exists()
    assert admin.perform("backup", {"target": str(tmp_path / "copy")})["problems"] == 0


def test_a_backup_holds_what_its_hub_refers_to_and_is_private(admin: Admin, hub: Hub, tmp_path: Path) -> None:
    """Database, secret and referenced files, readable by their owner alone; no file that nothing refers to."""
    kept, orphan = put_file(hub, "r", "a", b"kept"), hub.files.blobs.put([b"orphan"]).sha256
    copy = tmp_path / "copy"
    report = backup(hub.store.folder, copy)
    assert (report.problems, report.files) == ((), 1)
    names = {path.name for path in copy.rglob("*") if path.is_file()}
    assert names == {"hub.db", "secret", "backup.json", kept}
    assert orphan not in names
    assert all(path.stat().st_mode & 0o077 == 0 for path in [copy, *copy.rglob("*")])


def test_a_target_that_is_taken_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    """A folder with anything in it, or inside the data folder, is no target."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("dear")
    with pytest.raises(Conflict, match="exists; name a new folder"):
        backup(hub.store.folder, tmp_path / "copy")
    with pytest.raises(Invalid, match="inside the data folder"):
        backup(hub.store.folder, hub.store.folder / "blobs" / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine"]


def test_a_backup_is_no_data_folder(hub: Hub, tmp_path: Path) -> None:
    """A hub does not start on a backup, which would change it; check reads it and leaves nothing in it."""
    copy = tmp_path / "copy"
    backup(hub.store.folder, copy)
    held = {path.name for path in copy.iterdir()}
    assert command("check", "--data", copy)[0] == 0
    assert {path.name for path in copy.iterdir()} == held
    with pytest.raises(StartupError, match="is a backup; `prunefleet hub restore` it"):
        Store(copy)


def test_a_backup_that_is_killed_leaves_nothing_at_its_target(hub: Hub, tmp_path: Path) -> None:
    """A folder with the name of a backup is a whole one; after a kill the same command succeeds."""
    put_file(hub, "r", "a", b"kept")
    copy = tmp_path / "copies" / "copy"
    code = (
        "import os, sys; from pathlib import Path; from infra.hub import backup\n"
        "backup._take_place = lambda *_: os.kill(os.getpid(), 9)\n"
        "backup.backup(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, hub.store.folder, copy], check=False)
    assert ended.returncode == -9
    assert [path.name.endswith(".unfinished") for path in copy.parent.iterdir()] == [True]
    assert not backup(hub.store.folder, copy).problems


def test_damaged_files_do_not_keep_the_rest_from_being_saved(hub: Hub, tmp_path: Path) -> None:
    """A backup of a hub that has lost a file is made, and its report says which."""
    lost, kept = put_file(hub, "r", "a", b"lost"), put_file(hub, "r", "b", b"kept")
    hub.files.blobs.path(lost).write_bytes(b"l0st")
    report = backup(hub.store.folder, tmp_path / "copy")
    assert report.problems == (f"file {lost}: its bytes are gone",)
    assert restore(tmp_path / "copy", tmp_path / "new").problems == report.problems
    with local_hub(tmp_path / "new", Clock()) as new:
        assert new.files.blobs.read(kept) == b"kept"


def test_a_restored_hub_is_the_old_one(admin: Admin, hub: Hub, tmp_path: Path, clock: Clock) -> None:
    """Runs, history, files, artifacts, sweeps and keys: all is there and works, and new things can be made."""
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    file, artifact = put_file(hub, "r", "a", b"file"), log_artifact(hub, b"weights")
    hub.stream("local", "demo", "r", StreamPost(lines={Stream.HISTORY: (0, ['{"a": 1}'])}, summary={"a": 1}))
    sweep = make_sweep(hub)
    backup(hub.store.folder, tmp_path / "copy")
    hub.stream("local", "demo", "r", StreamPost(lines={Stream.HISTORY: (1, ['{"a": 2}'])}))
    restore(tmp_path / "copy", tmp_path / "new")
    with local_hub(tmp_path / "new", clock) as new:
        run = new.run("local", "demo", "r")
        assert run is not None
        assert (run.history_lines, run.summary, new.history(run.id)) == (1, {"a": 1}, [{"a": 1}])
        assert new.files.read(run.id, "a") == hub.files.blobs.read(file) == b"file"
        assert new.artifacts.artifact_file("local", "demo", f"model:v{artifact.version}", "w") == b"weights"
        assert new.find_sweep("local", "demo", sweep.name).config == sweep.config
        assert new.user_of_key(key) == "ann"
        assert new.user_of_session(hub.session_of("ann", 99)) == "ann"
        put_file(new, "later", "b", b"later")
        assert not check(new.store.folder).problems


def test_a_folder_with_anything_in_it_is_not_restored_into(admin: Admin, hub: Hub, tmp_path: Path) -> None:
    """A restore never touches what is there; and only a finished backup is a source."""
    backup(hub.store.folder, tmp_path / "copy")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("dear")
    with pytest.raises(Conflict, match="is not empty"):
        restore(tmp_path / "copy", taken)
    assert {path.name for path in taken.iterdir()} == {"mine", "lock"}
    (tmp_path / "copy" / "backup.json").unlink()
    with pytest.raises(Invalid, match="no finished backup"):
        restore(tmp_path / "copy", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# The command, on a hub that is not running


def test_the_command_works_on_a_stopped_hub(tmp_path: Path) -> None:
    """Users and keys are made, listed and revoked on the folder itself; each key is printed once and alone."""
    data = tmp_path / "hub"
    with local_hub(data, Clock()) as hub:
        hub.auth.ensure_first_user()
    code, key = command("users", "add", "ann", "--data", data)
    assert (code, len(key.strip())) == (0, 40)
    code, said = command("--data", data, "keys", "list", "ann")
    assert (code, "never" in said, key.strip() in said) == (0, True, False)
    assert command("keys", "revoke", said.splitlines()[1].split()[0], "--data", data)[0] == 0
    with local_hub(data, Clock()) as hub:
        assert hub.user_of_key(key.strip()) is None
    assert command("check", "--data", data)[0] == 0
    assert command("gc", "--dry-run", "--data", data)[0] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["users", "add"], "users add: got ''; give NAME"),
        (["users", "frob"], "users: got 'frob'; use one of list, add, remove"),
        (["keys", "revoke"], "keys revoke: got ''; give KEY"),
        (["gc", "--runs-older-than", "x"], "--runs-older-than: got 'x'"),
        (["check", "--data", "nowhere"], "holds no hub"),
        (["backup", "copy", "--data", "nowhere"], "holds no hub"),
        (["restore", "nowhere", "--data", "new"], "no finished backup"),
    ],
)
def test_bad_words_end_in_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends with 2 and one line that says what would be right."""
    monkeypatch.chdir(tmp_path)
    code, said = command(*words)
    assert (code, said.count("\n"), line in said) == (2, 1, True)
    assert list(tmp_path.iterdir()) == []
