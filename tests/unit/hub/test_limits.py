"""What one client may bring: each limit is refused in one line that names the setting, and harms nobody else."""

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.errors import Denied, StartupError
from prunefleet.infra.hub.store.rows import RunState
from prunefleet.infra.hub.users.limits import LEAST_BODY, MIB, Limits
from prunefleet.infra.wire.graphql.cost import MAX_DEPTH, MAX_FIELDS, MAX_ITEMS, MAX_VALUES

from support.access import ADMIN, World
from support.hub import SWEEP, Clock, Suggestions

Limited = Callable[..., World]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Limited]:
    """Makes a world with given limits."""
    stores = []

    def make(**limits: int) -> World:
        stores.append(Store(tmp_path / "data"))
        return World(Hub(stores[-1], Suggestions(), clock=Clock(), limits=Limits(**limits)))

    yield make
    for store in stores:
        store.close()


def start(world: World, name: str, project: str = "p", who: str = ADMIN) -> tuple[int, Any]:
    text = "mutation($i: UpsertBucketInput!) { upsertBucket(input: $i) { inserted } }"
    answer = world.ask(who, text, {"i": {"modelName": project, "name": name, "host": "h"}})
    return answer.status_code, answer.json()


def drafts(world: World) -> list[Path]:
    return [path for path in (world.hub.store.folder / "blobs").rglob("*") if path.is_file()]


def test_a_body_has_a_limit(limited: Limited) -> None:
    """A request beyond it is refused with 413, told or not how long it is, and before it is in memory."""
    world = limited(body=LEAST_BODY)
    for path in ("/graphql", "/files/local/p/r/file_stream"):
        answer = world.request(ADMIN, "POST", path, content=b"x" * (LEAST_BODY + 1))
        assert (answer.status_code, "--max-body-mb" in answer.json()["error"]) == (413, True)


def test_a_small_gzip_may_not_hold_a_large_body(limited: Limited) -> None:
    """What unpacks to more than the limit is refused as if it had come unpacked; broken gzip is a 400."""
    world = limited(body=LEAST_BODY)
    start(world, "r")
    packed = gzip.compress(b" " * (LEAST_BODY + 1))
    told = {"Content-Encoding": "gzip"}
    path = "/files/local/p/r/file_stream"
    assert world.request(ADMIN, "POST", path, content=packed, headers=told).status_code == 413
    for broken in (b"no gzip", packed[: len(packed) // 2], b""):
        assert world.request(ADMIN, "POST", path, content=broken, headers=told).status_code == 400
    fine = gzip.compress(json.dumps({"files": {}}).encode())
    assert world.request(ADMIN, "POST", path, content=fine, headers=told).status_code == 200


def test_a_file_has_a_limit(limited: Limited) -> None:
    """An upload beyond it is refused with 413, told or not how long it is, and leaves nothing on the disk."""
    world = limited(file=1000)
    start(world, "r")
    text = 'mutation { createRunFiles(input: {projectName: "p", runName: "r", files: ["a"]}) { files { uploadUrl } } }'
    url = world.ask(ADMIN, text).json()["data"]["createRunFiles"]["files"][0]["uploadUrl"]

    async def parts() -> Any:
        for _ in range(3):
            yield b"x" * 500

    for content in (b"x" * 1001, parts()):
        answer = world.request(None, "PUT", url, content=content)
        assert (answer.status_code, "--max-file-mb" in answer.json()["error"]) == (413, True)
    assert drafts(world) == []
    assert world.request(None, "PUT", url, content=b"x" * 1000).status_code == 200


@pytest.mark.parametrize(("limit", "word"), [("runs_project", "project"), ("runs_user", "user")])
def test_runs_have_a_limit(limited: Limited, limit: str, word: str) -> None:
    """One run too many is refused with the setting's name; those that are there go on, also under their ids again."""
    world = limited(**{limit: 2})
    assert [start(world, name)[0] for name in ("a", "b")] == [200, 200]
    status, answer = start(world, "c")
    assert (status, f"--max-runs-{word}" in answer["errors"][0]["message"]) == (403, True)
    assert start(world, "a")[0] == 200
    rows = {"files": {"wandb-history.jsonl": {"offset": 0, "content": ["{}"]}}, "complete": True}
    assert world.request(ADMIN, "POST", "/files/local/p/a/file_stream", json=rows).status_code == 200
    other = start(world, "c", project="q")[0]
    assert other == (200 if word == "project" else 403)
    world.hub.run_edits.delete(1, with_artifacts=False)
    assert start(world, "d")[0] == 200


def test_a_queue_gets_no_run_too_many(limited: Limited) -> None:
    """Neither `Sweep.enqueue_run` nor a local controller goes beyond the limit; what is refused leaves nothing."""
    world = limited(runs_project=1)
    hub, user = world.hub, world.user(ADMIN)
    local = SWEEP + "controller: {type: local}\n"
    sweep = hub.create_sweep(user, SweepChange(project="p", config_yaml=local))
    assert hub.enqueue(sweep.id, {"lr": 0.1}).state is RunState.PENDING
    schedule = {"schedule": [{"id": "one", "data": {"args": {"lr": {"value": 0.2}}}}]}
    for ask in (
        lambda: hub.enqueue(sweep.id, {"lr": 0.2}),
        lambda: hub.revise_sweep(sweep.id, SweepChange(controller=schedule)),
    ):
        with pytest.raises(Denied, match="--max-runs-project"):
            ask()
    assert len(hub.listing.sweep_runs(sweep.id)) == 1


def test_a_sweep_gets_no_run_too_many(limited: Limited) -> None:
    """An idle agent is told so; what its heartbeat settled stays settled, and no suggestion is used up."""
    world = limited(runs_project=1)
    hub, user = world.hub, world.user(ADMIN)
    sweep = hub.create_sweep(user, SweepChange(project="p", config_yaml=SWEEP))
    agent = hub.register_agent(user, ADMIN, "p", sweep.name, "h").id
    command = hub.heartbeat(agent, [])
    assert command is not None
    name = command["run_id"]
    hub.begin_run(user, RunChange(project="p", name=name, host="h"))
    assert hub.heartbeat(agent, [name]) is None
    with pytest.raises(Denied, match="--max-runs-project"):
        hub.heartbeat(agent, [])
    run = hub.records.run(ADMIN, "p", name)
    assert run is not None
    assert run.state is RunState.CRASHED
    assert isinstance(hub.suggester, Suggestions)
    assert hub.suggester.count == 1


def test_a_late_stream_is_taken_whatever_the_limits(limited: Limited) -> None:
    """A run that is there may always log: refusing it would lose what the client has."""
    world = limited(runs_project=1, runs_user=1)
    start(world, "a")
    posted = world.hub.stream(ADMIN, "p", "a", StreamPost(complete=True))
    assert posted.state is RunState.FINISHED


def fragments(depth: int) -> str:
    """Each fragment spreads the next one twice: short to write, long to run."""
    names = [f"F{n}" for n in range(depth)]
    parts = [f"fragment {a} on User {{ ...{b} ...{b} }}" for a, b in pairwise(names)]
    return "{ viewer { ...F0 } } " + " ".join(parts) + f" fragment {names[-1]} on User {{ id }}"


def cycle() -> str:
    return "{ viewer { ...A } } fragment A on User { ...B } fragment B on User { ...A }"


LONG = {
    "depth": ("{ a " * (MAX_DEPTH + 1) + "{ id }" + "}" * (MAX_DEPTH + 1), "nested deeper"),
    "very deep": ("{ a " * 3000 + "{ id }" + "}" * 3000, ""),
    "fields": ("{ " + " ".join(f"a{n}: serverInfo {{ __typename }}" for n in range(MAX_FIELDS)) + " }", "fields"),
    "the same field": ("{ viewer { " + "id " * (MAX_FIELDS + 1) + "} }", "fields"),
    "fragments": (fragments(20), ""),
    "cycle": (cycle(), ""),
    "tokens": ("{ viewer { id } } #" + "\n{" * 20_000, ""),
}


@pytest.mark.parametrize("name", LONG)
def test_a_query_has_a_limit(limited: Limited, name: str) -> None:
    """Deep, long, aliased, self-repeating and cyclic operations are refused with 400 and one line, in no time."""
    text, word = LONG[name]
    answer = limited().ask(ADMIN, text)
    assert answer.status_code == 400
    assert word in answer.json()["errors"][0]["message"]
    assert "\n" not in answer.json()["errors"][0]["message"][:200]


def test_pages_within_pages_are_counted(limited: Limited) -> None:
    """A query whose lists multiply is refused, whether the sizes are written or come as variables."""
    world = limited()
    runs = "runs(first: %s) { edges { node { %s } } }"
    inside = "project { " + runs % ("1000", "name") + " }"
    text = '{ project(name: "p") { ' + runs % ("1000", inside) + " } }"
    answer = world.ask(ADMIN, text)
    assert answer.status_code == 400
    assert f"more than {MAX_VALUES} values" in answer.json()["errors"][0]["message"]
    named = 'query($n: Int) { project(name: "p") { ' + runs % ("$n", inside.replace("1000", "$n")) + " } }"
    assert world.ask(ADMIN, named, {"n": 1000}).status_code == 400
    assert world.ask(ADMIN, named, {"n": 50}).status_code == 200


def test_a_list_has_a_limit(limited: Limited) -> None:
    """A list of variables that is too long is refused, wherever it stands."""
    world = limited()
    start(world, "r")
    text = "mutation($i: CreateRunFilesInput!) { createRunFiles(input: $i) { runID } }"
    answer = world.ask(ADMIN, text, {"i": {"projectName": "p", "runName": "r", "files": ["a"] * (MAX_ITEMS + 1)}})
    assert answer.status_code == 400
    assert f"at most {MAX_ITEMS}" in answer.json()["error"]


@pytest.mark.parametrize("given", [{"body": LEAST_BODY - MIB}, {"file": 0}, {"runs_project": 0}, {"runs_user": 0}])
def test_impossible_limits_are_refused(given: dict[str, int]) -> None:
    """A limit below what the client needs stops the start; the line names the setting."""
    with pytest.raises(StartupError, match=r"^max .*; give at least"):
        Limits(**given)
