"""What an administrator may do about people and their keys, and the command for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.store import keys, statements
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.upkeep.admin import Admin

from support.hub import Clock, command, local_hub, post, served


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
    assert (hub.host_keys.person_of(first), hub.host_keys.person_of(second)) == ("ann", "ann")
    digest = hub.auth.digest(first)
    admin.perform("keys.revoke", {"id": digest[: keys.ID_LENGTH]})
    assert (hub.host_keys.person_of(first), hub.host_keys.person_of(second)) == (None, "ann")
    assert key_ids(admin, "ann") == [hub.auth.digest(second)[: keys.ID_LENGTH]]


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    admin: Admin, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that began before the revocation does not keep the key alive after it."""
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    real = statements.user_with_key

    def slow(connection: Any, digest: str) -> Any:
        found = real(connection, digest)
        monkeypatch.undo()
        admin.perform("keys.revoke", {"id": digest})
        return found

    monkeypatch.setattr(statements, "user_with_key", slow)
    hub.host_keys.person_of(key)
    assert hub.host_keys.person_of(key) is None


def test_revoking_ends_what_was_signed_in(admin: Admin, hub: Hub, clock: Clock) -> None:
    """Sign-ins to the pages of a key's owner end with the key; a later one is good, and others' stay."""
    admin.perform("users.add", {"username": "ann"})
    cookies = {name: hub.auth.session_of(name, 9999) for name in ("ann", "local")}
    ticket = hub.auth.ticket_for("ann")
    clock.pass_by(5)
    admin.perform("keys.revoke", {"id": key_ids(admin, "ann")[0]})
    assert (hub.auth.user_of_session(cookies["ann"]), hub.auth.user_of_ticket(ticket)) == (None, None)
    assert hub.auth.user_of_session(cookies["local"]) == "local"
    clock.pass_by(5)
    assert hub.auth.user_of_session(hub.auth.session_of("ann", 9999)) == "ann"


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
        hub.host_keys.person_of(key)
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
    cookie = hub.auth.session_of("ann", 9999)
    assert admin.perform("users.remove", {"username": "ann"})["lines"] == ["removed ann: 1 keys revoked, 1 runs stay"]
    assert (hub.host_keys.person_of(key), hub.auth.user_of_session(cookie)) == (None, None)
    assert hub.records.run("ann", "demo", "r") is not None
    with pytest.raises(Missing):
        admin.perform("users.remove", {"username": "ann"})
    with pytest.raises(Missing):
        admin.perform("keys.add", {"username": "ann"})
    clock.pass_by(1)
    again = admin.perform("users.add", {"username": "ann"})["api_key"]
    assert hub.host_keys.person_of(again) == "ann"
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
    assert hub.host_keys.person_of(key) == "local"


def test_the_endpoint_wants_the_admin_token(hub: Hub) -> None:
    """A user's key or a wrong token administrates nothing; an unknown operation is told."""
    with served(hub, "token") as url:
        assert post(f"{url}/admin/perform/users.list", {}, {"Authorization": "Bearer wrong"})[0] == 401
        assert post(f"{url}/admin/perform/users.list", {}, {})[0] == 401
        good = {"Authorization": "Bearer token"}
        assert post(f"{url}/admin/perform/users.list", {}, good) == (200, {"users": []})
        status, answer = post(f"{url}/admin/perform/frob", {}, good)
        assert (status, "use one of users.list" in answer["error"]) == (404, True)


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
        assert hub.host_keys.person_of(key.strip()) is None
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
