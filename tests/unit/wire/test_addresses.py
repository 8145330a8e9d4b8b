"""Signed addresses: each opens one file of one owner, one way, for some hours, while its user may see the owner."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.runs.heartbeat import register
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import NUMBERED, execute, many
from prunefleet.infra.wire.graphql.ids import decode

from support.access import ADMIN, OTHER, Target, World
from support.hub import SWEEP, Clock, local_hub


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    with local_hub(tmp_path / "data", clock) as hub:
        yield World(hub)


def upload(world: World, target: Target, who: str | None = None, name: str = "a.txt") -> str:
    """The path of an address to upload that file of the target's run to, made for that user."""
    text = "mutation($i: CreateRunFilesInput!) { createRunFiles(input: $i) { files { uploadUrl } } }"
    given = {"entityName": target.entity, "projectName": target.project, "runName": target.run, "files": [name]}
    answer = world.ask(who or target.entity, text, {"i": given}).json()
    return urlsplit(answer["data"]["createRunFiles"]["files"][0]["uploadUrl"]).path


def download(world: World, target: Target, who: str | None = None) -> str:
    """The path of the address of the target's run's file."""
    text = "query($e: String, $p: String, $r: String!) { project(entityName: $e, name: $p) { run(name: $r) { %s } } }"
    files = "files { edges { node { directUrl } } }"
    given = {"e": target.entity, "p": target.project, "r": target.run}
    answer = world.ask(who or target.entity, text % files, given).json()
    return urlsplit(answer["data"]["project"]["run"]["files"]["edges"][0]["node"]["directUrl"]).path


def test_an_address_works_for_its_own_way_alone(world: World) -> None:
    """What was made to upload opens no download, and the other way round; neither takes another method."""
    ann = world.owner()
    up, down = upload(world, ann), download(world, ann)
    assert world.request(None, "GET", down).content == ann.entity.encode()
    assert world.request(None, "PUT", up, content=b"new").status_code == 200
    tokens = {"up": up.split("/")[2], "down": down.split("/")[2]}
    assert world.request(None, "PUT", f"/upload/{tokens['down']}", content=b"x").status_code == 403
    assert world.request(None, "GET", f"/download/{tokens['up']}/a.txt").status_code == 403
    for method, path in (("GET", up), ("POST", up), ("DELETE", up), ("PUT", down), ("POST", down)):
        assert world.request(None, method, path).status_code in (401, 405)  # 401: read as a page's address


def test_an_address_says_which_file_whatever_is_written_behind_it(world: World) -> None:
    """The name at the end is for people: what is read is what was signed."""
    ann = world.owner()
    down = download(world, ann)
    other = world.request(None, "GET", down.rpartition("/")[0] + "/other.txt")
    assert (other.status_code, other.content) == (200, ann.entity.encode())


def test_cookies_tickets_and_keys_are_no_addresses(world: World) -> None:
    """Whatever else the hub has signed or handed out opens no file."""
    ann = world.owner()
    words = (world.hub.auth.session_of(ann.entity, 60), world.hub.auth.ticket_for(ann.entity), world.keys[ann.entity])
    for word in (*words, world.hub.auth.sign({"put": ["x"]}, 60)[:-1], "%00", "a.b.c"):
        assert world.request(None, "PUT", f"/upload/{word}", content=b"x").status_code in (403, 404), word
        assert world.request(None, "GET", f"/download/{word}/n").status_code in (403, 404), word


def test_an_address_ends_with_its_file(world: World) -> None:
    """An address of a file that was deleted opens nothing, though it has hours left."""
    ann = world.owner()
    down = download(world, ann)
    text = "mutation($i: DeleteFilesInput!) { deleteFiles(input: $i) { success } }"
    world.ask(ann.entity, text, {"i": {"files": [ann.file_id]}})
    assert world.request(None, "GET", down).status_code == 404


def test_an_address_ends_with_its_user(world: World) -> None:
    """When a user is removed, the addresses made for them are refused, those of others not."""
    ann = world.owner()
    paths = [upload(world, ann), upload(world, ann, ADMIN)]
    bearer = {"Authorization": "Bearer admin-token"}
    world.request(None, "POST", "/admin/perform/users.remove", json={"username": ann.entity}, headers=bearer)
    answers = [world.request(None, "PUT", path, content=b"x") for path in paths]
    assert [answer.status_code for answer in answers] == [403, 200]
    assert "no user here any more" in answers[0].json()["error"]


def test_an_address_ends_with_what_its_user_may(world: World) -> None:
    """An address that an administrator got for another's run is refused once they are no administrator."""
    ann = world.owner()
    up, down = upload(world, ann, ADMIN), download(world, ann, ADMIN)
    world.hub.store.write(lambda c: execute(c, "UPDATE user SET admin = 0"))
    assert world.request(None, "PUT", up, content=b"x").status_code == 404
    assert world.request(None, "GET", down).status_code == 404


def test_an_address_does_not_pass_on_to_what_comes_later(world: World) -> None:
    """The address of a deleted run does not reach a run that another user makes afterwards."""
    ann = world.owner()
    path = upload(world, ann)
    world.hub.run_edits.delete(decode("Run", ann.run_id), with_artifacts=False)
    later, _ = world.hub.begin_run(world.user(OTHER), RunChange(project="p", name="r", host="h"))
    assert world.request(None, "PUT", path, content=b"x").status_code == 404
    assert world.hub.files.listed(later.id) == []


def test_an_address_expires(world: World, clock: Clock) -> None:
    """After its hours an address is refused in a line that says so."""
    ann = world.owner()
    up, down = upload(world, ann), download(world, ann)
    clock.pass_by(7 * 3600)
    for answer in (world.request(None, "PUT", up, content=b"x"), world.request(None, "GET", down)):
        assert (answer.status_code, "expired" in answer.json()["error"]) == (403, True)


def test_ids_are_never_given_twice(world: World) -> None:
    """After the last row of a table was deleted, the next one has a new id."""
    ann = world.owner()
    hub, user = world.hub, world.user(ann.entity)
    hub.run_edits.delete(decode("Run", ann.run_id), with_artifacts=False)
    hub.delete_sweep(decode("Sweep", ann.sweep_id))
    hub.artifacts.delete_collection(decode("ArtifactSequence", ann.sequence_id))
    hub.artifacts.delete_collection(decode("ArtifactPortfolio", ann.portfolio_id))
    run, _ = hub.begin_run(user, RunChange(project=ann.project, name="again", host="h"))
    sweep = hub.create_sweep(user, SweepChange(project=ann.project, config_yaml=SWEEP))
    agent = hub.store.write(lambda c: register(c, user, None, ann.project, sweep.name, "h", 0.0))
    artifact = hub.artifacts.create(user, NewArtifact(None, ann.project, "m", "model", digest="d"))
    assert run.id > decode("Run", ann.run_id)
    assert sweep.id > decode("Sweep", ann.sweep_id)
    assert agent.id > decode("Agent", ann.agent_id)
    assert artifact.id > decode("Artifact", ann.artifact_id)
    assert artifact.collection.id > decode("ArtifactPortfolio", ann.portfolio_id)


def test_every_numbered_table_remembers(world: World) -> None:
    """Each table whose ids clients hold has the trigger that notes what was deleted."""
    with world.hub.store.read() as connection:
        triggers = many(connection, "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'")
    found = {row["tbl_name"] for row in triggers}
    assert found == NUMBERED
