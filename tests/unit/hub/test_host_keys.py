"""Tokens that hosts join with: good once, soon and for one sweep; and keys of hosts, which are less than a person's."""

import html
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from prunefleet.infra.dashboard.session import COOKIE
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store import hosts
from prunefleet.infra.hub.store.errors import Conflict, Denied, HubError, Invalid, Unauthorized
from prunefleet.infra.hub.upkeep.admin import Admin
from prunefleet.infra.hub.users.host_keys import MINUTES, PREFIX
from prunefleet.objective.devices import queue

from support.hub import SWEEP, Clock, basic, local_hub, make_sweep, post, served

UNKNOWN, USED, EXPIRED = "does not know it", "was used before", "has expired"


def key_id(hub: Hub, key: str) -> str:
    return hub.auth.digest(key)[:8]


def test_a_token_becomes_one_key_of_the_sweep_s_owner(hub: Hub) -> None:
    """The key works, belongs to the owner, names its host in the list, and can be revoked by itself."""
    sweep = make_sweep(hub)
    made = hub.host_keys.invite(sweep)
    joined = hub.host_keys.accept(made.token, "board\n1")
    assert (joined.username, joined.sweep, joined.extra) == ("local", f"local/demo/{sweep.name}", "trial")
    user = hub.auth.user_of(joined.api_key)
    assert user is not None and user.username == "local"
    with pytest.raises(Unauthorized, match=USED):
        hub.host_keys.accept(made.token, "board2")
    admin = Admin(hub)
    keys = admin.perform("keys.list", {})["keys"]
    assert {key["host"] for key in keys} == {None, "board1"}
    admin.perform("keys.revoke", {"id": key_id(hub, joined.api_key)})
    assert hub.auth.user_of(joined.api_key) is None and len(hub.auth.users()) == 1


def test_two_hosts_at_the_same_time_get_one_key(hub: Hub) -> None:
    """However many exchange a token at once, one of them gets a key and the others are told that it was used."""
    token = hub.host_keys.invite(make_sweep(hub)).token
    start = threading.Barrier(8)

    def join(number: int) -> str:
        start.wait()
        try:
            return hub.host_keys.accept(token, f"h{number}").api_key
        except Unauthorized as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(join, range(8)))
    assert sum(len(each) == 40 for each in told) == 1
    assert sum(USED in each for each in told) == 7


def test_a_token_expires(hub: Hub, clock: Clock) -> None:
    """After its minutes it is refused in another line than one that never was, which it becomes a day later."""
    sweep = make_sweep(hub)
    short, default = hub.host_keys.invite(sweep, 1).token, hub.host_keys.invite(sweep).token
    clock.pass_by(61)
    with pytest.raises(Unauthorized, match=EXPIRED):
        hub.host_keys.accept(short, "h")
    clock.pass_by(60 * MINUTES - 62)
    hub.host_keys.accept(default, "h")
    clock.pass_by(2 * 86400)
    fresh = hub.host_keys.invite(sweep).token
    for token in (short, default, PREFIX + "0" * 40, "", fresh[:-1]):
        with pytest.raises(Unauthorized, match=UNKNOWN):
            hub.host_keys.accept(token, "h")


def test_a_restart_revives_nothing(tmp_path: Path, clock: Clock) -> None:
    """After a restart, with the clock set back too, a used token is used, an open one open; none stands on disk."""
    with local_hub(tmp_path / "hub", clock) as hub:
        sweep = make_sweep(hub)
        used, open_ = hub.host_keys.invite(sweep).token, hub.host_keys.invite(sweep).token
        key = hub.host_keys.accept(used, "h").api_key
    clock.pass_by(-3600)
    with local_hub(tmp_path / "hub", clock) as hub:
        with pytest.raises(Unauthorized, match=USED):
            hub.host_keys.accept(used, "h")
        assert hub.host_keys.accept(open_, "h").username == "local"
        content = b"".join(path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.is_file())
    for secret in (used, open_, key):
        assert secret.encode() not in content and secret.removeprefix(PREFIX).encode() not in content


@pytest.mark.parametrize("minutes", [0, -1, 1e9, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(hub: Hub, minutes: float) -> None:
    """A token lives a while, and a day at most."""
    with pytest.raises(Invalid, match="minutes"):
        hub.host_keys.invite(make_sweep(hub), minutes)


def test_tokens_end_with_their_sweep_their_user_and_a_revoked_key(hub: Hub) -> None:
    """Open tokens are unknown once the sweep is gone, the user is removed, or a key of a person's was revoked."""
    admin = Admin(hub)
    make_sweep(hub)
    key = admin.perform("users.add", {"username": "ann"})["api_key"]
    ann = hub.auth.user_of(key)
    assert ann is not None
    sweeps = [hub.create_sweep(ann, SweepChange(project="p", config_yaml=SWEEP)) for _ in range(3)]
    tokens = [hub.host_keys.invite(sweep).token for sweep in sweeps]
    hub.delete_sweep(sweeps[0].id)
    admin.perform(
        "keys.revoke", {"id": key_id(hub, hub.host_keys.accept(tokens[1], "h").api_key)}
    )  # a host's: no more ends
    third = hub.host_keys.accept(tokens[2], "h2").api_key
    fourth, fifth = hub.host_keys.invite(sweeps[1]).token, hub.host_keys.invite(sweeps[1]).token
    admin.perform("keys.revoke", {"id": key_id(hub, key)})
    for token in (tokens[0], fourth):
        with pytest.raises(Unauthorized, match=UNKNOWN):
            hub.host_keys.accept(token, "h")
    late = hub.host_keys.invite(sweeps[1]).token
    admin.perform("users.remove", {"username": "ann"})
    assert hub.auth.user_of(third) is None
    for token in (fifth, late):
        with pytest.raises(Unauthorized, match=UNKNOWN):
            hub.host_keys.accept(token, "h")
    with pytest.raises(Conflict, match="no user here"):
        hub.host_keys.invite(sweeps[1])


def test_a_user_who_owns_nothing_but_a_token_is_forgotten(hub: Hub, clock: Clock) -> None:
    """A token is nothing that makes a removed user stay in the list."""
    admin = Admin(hub)
    sweep = make_sweep(hub)
    admin.perform("users.add", {"username": "ann"})
    ann = hub.auth.user_named("ann")
    assert ann is not None
    hub.store.write(lambda c: hosts.add(c, "f" * 64, ann.id, sweep.id, clock(), clock()))
    admin.perform("users.remove", {"username": "ann"})
    assert [each["username"] for each in admin.perform("users.list", {})["users"]] == ["local"]


def test_a_host_s_key_is_less_than_a_person_s(hub: Hub) -> None:
    """It signs nobody in, is no administrator's though its user is one, invites nobody, and gives itself up alone."""
    person = hub.auth.ensure_first_user()
    assert person is not None
    sweep = make_sweep(hub)
    host = hub.host_keys.accept(hub.host_keys.invite(sweep).token, "board1").api_key
    cookie = hub.auth.session_of("local", 600)
    assert (hub.host_keys.person_of(host), hub.host_keys.person_of(person)) == (None, "local")
    known, owner = hub.auth.user_of(host), hub.auth.user_of(person)
    assert known is not None and owner is not None and (known.admin, owner.admin) == (False, True)
    path = f"local/demo/{sweep.name}"
    with served(hub) as url:
        status, told = post(f"{url}/join/tokens", {"sweep": path}, {"Authorization": basic(host)})
        assert (status, "invites no other" in told["error"]) == (403, True)
        status, told = post(f"{url}/leave", {}, {"Authorization": basic(person)})
        assert (status, "given to a person" in told["error"]) == (403, True)
        assert post(f"{url}/leave", {}, {"Authorization": basic(host)}) == (200, {"host": "board1"})
        assert post(f"{url}/leave", {}, {"Authorization": basic(host)})[0] == 401
        query = {"query": "{viewer{username}}"}
        assert post(f"{url}/graphql", query, {"Authorization": basic(host)})[0] == 401
        assert post(f"{url}/graphql", query, {"Authorization": basic(person)})[0] == 200
    with pytest.raises(Denied):
        hub.host_keys.give_up(person)
    assert hub.auth.user_of_session(cookie) == "local"  # a host that leaves signs nobody out


def test_over_http_a_token_is_made_and_exchanged(hub: Hub) -> None:
    """By a key, or by the administrator's word; strangers are refused; each refusal is one line without the token."""
    person = hub.auth.ensure_first_user()
    sweep = make_sweep(hub, yaml.safe_dump(queue("board1")))
    path = f"local/demo/{sweep.name}"
    with served(hub) as url:
        status, made = post(f"{url}/join/tokens", {"sweep": path}, {"Authorization": basic(person or "")})
        assert (status, made["extra"], made["sweep"]) == (201, "measure", path)
        assert re.search(r"'prunefleet\[measure\] @ http://127\.0\.0\.1:\d+/wheel/\S+\.whl#sha256=", made["line"])
        assert made["line"].endswith(f"PRUNEFLEET_JOIN_TOKEN={made['token']} ~/prunefleet/bin/prunefleet join {url}")
        status, joined = post(f"{url}/join", {"token": made["token"], "host": "h"}, {})
        assert (status, joined["username"], joined["sweep"]) == (201, "local", path)
        bearer = {"Authorization": "Bearer token"}
        status, by_admin = post(f"{url}/admin/perform/invite", {"sweep": path, "minutes": 1}, bearer)
        assert (status, by_admin["extra"]) == (200, "measure")
        assert post(f"{url}/admin/perform/invite", {"sweep": "local/demo/x"}, bearer)[0] == 404
        for body, code in (
            ({"token": made["token"], "host": "h"}, 401),
            ({"token": "join-x", "host": "h"}, 401),
            ({"token": by_admin["token"]}, 400),
            ({"host": "h"}, 400),
            ({"token": 7, "host": "h"}, 400),
            ({"token": "t" * 20_000, "host": "h"}, 413),
        ):
            status, told = post(f"{url}/join", body, {})
            assert status == code and "\n" not in told["error"], told
            assert str(body.get("token", "-"))[:20] not in told["error"]
        for body in ({"sweep": "local/demo"}, {"sweep": "nobody/p/s"}):
            assert post(f"{url}/join/tokens", body, {"Authorization": basic(person or "")})[0] == 404
        assert post(f"{url}/join/tokens", {"sweep": path}, {})[0] == 401


def test_refusals_tell_nothing_of_others(hub: Hub) -> None:
    """A used, an expired and an unknown token are told apart to who holds them, and no user or sweep is named."""
    sweep = make_sweep(hub)
    token = hub.host_keys.invite(sweep).token
    hub.host_keys.accept(token, "secret-host")
    for each in (token, "join-none"):
        with pytest.raises(HubError) as refused:
            hub.host_keys.accept(each, "h")
        assert not re.search(f"local|demo|{sweep.name}|secret-host", str(refused.value))


def test_the_page_makes_the_line_for_its_own_form_alone(hub: Hub) -> None:
    """A signed-in owner's button gives the line; another site, a stranger and another user's sweep give none."""
    sweep = make_sweep(hub)
    hub.auth.add_user("ann")
    address = f"/local/demo/sweeps/{sweep.name}"
    with served(hub) as url, httpx.Client(base_url=url, headers={"accept": "text/html"}) as browser:
        assert browser.post(f"{address}/invite", headers={"origin": url}).status_code == 303
        browser.cookies.set(COOKIE, hub.auth.session_of("local", 600))
        assert f'action="{address}/invite"' in browser.get(address).text
        for headers in (
            {},
            {"origin": "https://elsewhere"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:1"},
            {"sec-fetch-site": "cross-site", "origin": url},
            {"sec-fetch-site": "same-site", "origin": url},
        ):
            refused = browser.post(f"{address}/invite", headers=headers)
            assert refused.status_code == 403 and "PRUNEFLEET_JOIN_TOKEN" not in refused.text
        shown = browser.post(f"{address}/invite", headers={"origin": url})
        assert shown.status_code == 200 and shown.headers["cache-control"] == "no-store"
        assert "works on this machine alone" in shown.text and "--host ADDRESS" in shown.text
        text = html.unescape(shown.text)
        (token,) = re.findall(r"PRUNEFLEET_JOIN_TOKEN=(join-\w+) ", text)
        assert "prunefleet[trial] @ " in text
        assert browser.post(f"{address}/invite", headers={"sec-fetch-site": "same-origin"}).status_code == 200
        status, _ = post(f"{url}/join", {"token": token, "host": "h"}, {})
        assert status == 201
        browser.cookies.set(COOKIE, hub.auth.session_of("ann", 600))
        assert browser.post(f"{address}/invite", headers={"origin": url}).status_code == 404
        made = json.dumps(Admin(hub).perform("keys.list", {})["keys"])
        assert token not in made
