"""What keeps a hub in order: check, gc, backup and restore."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing, StartupError
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import SweepState
from prunefleet.infra.hub.upkeep.admin import Admin
from prunefleet.infra.hub.upkeep.backup import backup, restore
from prunefleet.infra.hub.upkeep.damage import check

from support.hub import Clock, command, first_user, local_hub, make_sweep
from support.upkeep import DAY, age, has, log_artifact, put_file


@pytest.fixture
def admin(hub: Hub) -> Admin:
    hub.auth.ensure_first_user()
    return Admin(hub)


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
    assert [run.name for run in hub.records.runs("local", "demo")] == ["open", "swept"]
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
        "import os, sys; from pathlib import Path; from prunefleet.infra.hub.upkeep import backup\n"
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
        run = new.records.run("local", "demo", "r")
        assert run is not None
        assert (run.history_lines, run.summary, new.run_lines.history(run.id)) == (1, {"a": 1}, [{"a": 1}])
        assert new.files.read(run.id, "a") == hub.files.blobs.read(file) == b"file"
        assert new.artifacts.artifact_file("local", "demo", f"model:v{artifact.version}", "w") == b"weights"
        assert new.records.find_sweep("local", "demo", sweep.name).config == sweep.config
        assert new.host_keys.person_of(key) == "ann"
        assert new.auth.user_of_session(hub.auth.session_of("ann", 99)) == "ann"
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
