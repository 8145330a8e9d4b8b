"""Users, keys and signed tokens."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing, StartupError
from prunefleet.infra.hub.users.auth import Auth, load_secret, write_private

from support.hub import Clock, local_hub


def test_the_first_key_is_told_once(hub: Hub) -> None:
    """An empty store gets a first user, an administrator, and its key is never told again."""
    key = hub.auth.ensure_first_user()
    assert key is not None
    assert len(key) >= 40
    user = hub.auth.user_of(key)
    assert user is not None
    assert user.admin
    assert hub.auth.ensure_first_user() is None


def test_keys_are_nowhere_on_disk(hub: Hub) -> None:
    """The data folder holds keyed hashes alone."""
    key = hub.auth.add_user("ann", "k" * 40)
    assert hub.auth.user_of(key) is not None
    for path in hub.store.folder.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes()


def test_unknown_keys_have_no_user(hub: Hub) -> None:
    """A key that differs in its last character is nobody's."""
    key = hub.auth.add_user("ann")
    assert hub.auth.user_of(key[:-1] + ("0" if key[-1] != "0" else "1")) is None


def test_a_key_belongs_to_one_user(hub: Hub) -> None:
    """The same user may be made again with the same key; another may not have it."""
    hub.auth.add_user("ann", "k" * 40)
    hub.auth.add_user("ann", "k" * 40)
    hub.auth.add_user("ann", "m" * 40)
    with pytest.raises(Conflict, match="another user holds this key"):
        hub.auth.add_user("bob", "k" * 40)
    assert hub.host_keys.person_of("m" * 40) == "ann"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 65, "a b"])
def test_bad_user_names_are_refused(hub: Hub, name: str) -> None:
    """A name that could not stand in an address is refused with the rule."""
    with pytest.raises(Invalid, match="username: got"):
        hub.auth.add_user(name)


def test_short_keys_are_refused(hub: Hub) -> None:
    """The client refuses keys under 40 characters, so the hub does not make users with them."""
    with pytest.raises(Invalid, match="api_key: got 39 characters; use at least 40"):
        hub.auth.add_user("ann", "k" * 39)


@given(
    payload=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), flip=st.integers(0, 10**6)
)
def test_a_token_tells_its_payload_and_nothing_else(payload: object, flip: int) -> None:
    """A signed token gives its payload back; with any character changed it gives nothing."""
    auth = Auth(None, b"s" * 32, lambda: 0.0)  # type: ignore[arg-type]
    token = auth.sign(payload, 10)
    assert auth.unsign(token) == payload
    at = flip % len(token)
    other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    with pytest.raises(Invalid):
        auth.unsign(other)


def test_tokens_expire(hub: Hub, clock: Clock) -> None:
    """A token is good until its time and not after."""
    token = hub.auth.sign("x", 10)
    clock.pass_by(10)
    assert hub.auth.unsign(token) == "x"
    clock.pass_by(0.1)
    with pytest.raises(Invalid, match="expired"):
        hub.auth.unsign(token)


def test_a_ticket_is_no_cookie(hub: Hub) -> None:
    """Tokens of one purpose do not serve another."""
    name = hub.auth.users()[0].username if hub.auth.ensure_first_user() else ""
    ticket, cookie = hub.auth.ticket_for(name), hub.auth.session_of(name, 60)
    assert (hub.auth.user_of_ticket(ticket), hub.auth.user_of_session(cookie)) == (name, name)
    assert hub.auth.user_of_session(ticket) is None
    assert hub.auth.user_of_ticket(cookie) is None
    with pytest.raises(Missing, match="make the user first"):
        hub.auth.ticket_for("nobody")


def test_secrets_are_private_and_stay(tmp_path: Path) -> None:
    """The secret is made once, mode 0600, and read again by the next hub."""
    secret = load_secret(tmp_path)
    assert load_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_lost_secret_is_told_and_not_replaced(tmp_path: Path, clock: Clock) -> None:
    """Without the secret no key is known; a hub with keys says so instead of making another."""
    with local_hub(tmp_path, clock) as hub:
        key = hub.auth.add_user("ann")
    secret = (tmp_path / "secret").read_bytes()
    (tmp_path / "secret").unlink()
    with pytest.raises(StartupError, match=r"secret' is gone.*put it back"), local_hub(tmp_path, clock):
        pass
    assert not (tmp_path / "secret").exists()
    (tmp_path / "secret").write_bytes(secret)
    with local_hub(tmp_path, clock) as hub:
        assert hub.host_keys.person_of(key) == "ann"


def test_a_private_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """An older file at the place, readable by all, is replaced by a private one."""
    path = tmp_path / "ready.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["ready.json"]
