"""Requests on the wire as the client sends them, and others: statuses, errors, what is repeated, who may ask."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub import HubProcess


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("runs")) as hub:
        yield hub


def test_mistakes_in_a_request_are_400(hub: HubProcess) -> None:
    """What the schema rejects is 400, so that the client does not repeat it; an empty operation name is none."""
    assert hub.post("/graphql", {"query": "{viewer{nothing}}"})[0] == 400
    assert hub.post("/graphql", {"query": "{viewer{"})[0] == 400
    assert hub.post("/graphql", {"query": "query A($n: Int!){viewer{id}}", "variables": {"n": "x"}})[0] == 400
    assert hub.post("/graphql", b"no json")[0] == 400
    assert hub.post("/graphql", {"query": "query A {viewer{username}}", "operationName": ""})[1] == {
        "data": {"viewer": {"username": "local"}}
    }


def make_run(hub: HubProcess, name: str) -> str:
    text = (
        "mutation B($name: String!, $config: JSONString) { upsertBucket(input: {name: $name, modelName: $name,"
        ' config: $config, host: "h"}) { bucket { id } } }'
    )
    return str(hub.query(text, name=name, config="{}")["upsertBucket"]["bucket"]["id"])


def test_the_stream_is_idempotent_by_offset(hub: HubProcess) -> None:
    """A repeated chunk is stored once; the answer tells whether the run is to stop."""
    run_id = make_run(hub, "stream")
    path = "/files/local/stream/stream/file_stream"
    chunk = {"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 0, "a": NaN}', '{"_step": 1}']}}}
    assert [hub.post(path, chunk) for _ in range(2)] == [(200, {"stopped": False, "limits": {}})] * 2
    text = '{project(name: "stream") {run(name: "stream") {historyLineCount shouldStop sampledHistory(specs: %s)}}}'
    specs = json.dumps(['{"keys": ["_step", "a"]}'])
    run = hub.query(text % specs)["project"]["run"]
    assert (run["historyLineCount"], run["sampledHistory"]) == (2, [[{"_step": 0, "a": "NaN"}]])
    hub.query("mutation S($id: ID!) {stopRun(input: {id: $id}) {success}}", id=run_id)
    assert hub.post(path, {})[1]["stopped"] is True


def test_samples_are_paged_by_newer_and_older_clients(hub: HubProcess) -> None:
    """A page of samples has each step once, whether the client counts its last step in or not; system metrics too."""
    make_run(hub, "paged")
    rows = [json.dumps({"_step": step, "x": step}) for step in range(6)]
    files = {"wandb-history.jsonl": {"content": rows}, "wandb-events.jsonl": {"content": ['{"system.cpu": 7}']}}
    assert hub.post("/files/local/paged/paged/file_stream", {"files": files})[0] == 200
    text = """query Q($specs: [JSONString!]!) {project(name: "paged") {run(name: "paged") {
        sampledHistory(specs: $specs) events systemMetrics eventsLineCount}}}"""
    spec = {"keys": ["x"], "samples": 2}
    newer = [{**spec, "minStep": low, "maxStep": low + 1} for low in (0, 2, 4)]
    older = [{**spec, "minStep": low, "maxStep": low + 2} for low in (0, 2, 4)]
    run = hub.query(text, specs=[json.dumps(one) for one in [*newer, *older]])["project"]["run"]
    assert [[row["x"] for row in page] for page in run["sampledHistory"]] == [[0, 1], [2, 3], [4, 5]] * 2
    assert (run["events"], json.loads(run["systemMetrics"])) == (['{"system.cpu": 7}'], {"system.cpu": 7})
    for odd in ('{"keys": 1}', '{"keys": ["x"], "samples": "x"}', "[]", "{"):
        assert hub.post("/graphql", {"query": text, "variables": {"specs": [odd]}})[0] == 400


def test_only_a_run_that_is_gone_gets_a_4xx(hub: HubProcess) -> None:
    """The client gives up on any 4xx, so strange contents are taken and only a missing run is refused."""
    make_run(hub, "odd")
    strange = {"files": {"unknown.bin": {"offset": 0, "content": ["x"]}, "output.log": {}}, "news": 1}
    assert hub.post("/files/local/odd/odd/file_stream", strange)[0] == 200
    assert hub.post("/files/local/odd/gone/file_stream", {})[0] == 404
    for senseless in ({"files": [1]}, {"files": {"output.log": {"offset": "x"}}}, {"complete": True, "exitcode": "x"}):
        assert hub.post("/files/local/odd/odd/file_stream", senseless)[0] == 400


def test_odd_values_are_taken_or_refused_never_failed_on(hub: HubProcess) -> None:
    """Half a surrogate pair, an infinite step and numbers out of range are no errors of the server's."""
    make_run(hub, "values")
    rows = ['{"_step": 1e999, "a": "\\ud800"}', '{"_step": NaN}', '{"_step": 3, "\\ud800": 1}', "no json \ud800"]
    chunk = {"files": {"wandb-history.jsonl": {"offset": 0, "content": rows}}}
    assert hub.post("/files/local/values/values/file_stream", chunk)[0] == 200
    text = 'query Q($low: Int64) {project(name: "values") {run(name: "values") {history(minStep: $low) historyKeys}}}'
    asked = {low: hub.post("/graphql", {"query": text, "variables": {"low": low}}) for low in (2, "2", "x", 1 << 70)}
    assert [status for status, _answer in asked.values()] == [200, 200, 400, 400]
    assert len(asked[2][1]["data"]["project"]["run"]["history"]) == 1
    assert "whole number of 64 bits" in asked["x"][1]["errors"][0]["message"]
    named = (
        'mutation M($n: String) {upsertBucket(input: {name: "n", displayName: $n, host: "h"}) {bucket {displayName}}}'
    )
    assert hub.query(named, n="half \ud800")["upsertBucket"]["bucket"]["displayName"] == "half ?"
    assert hub.post("/graphql", {"query": "{viewer{id}}", "variables": [1]})[0] == 400


def test_telemetry_is_taken(hub: HubProcess) -> None:
    """The client's own telemetry gets a 200, so that it does not try again."""
    assert [hub.post(f"/sdk/otel/v1/{kind}", b"\x0a\x00")[0] for kind in ("metrics", "logs")] == [200, 200]


def test_administrators_make_users_and_tickets(hub: HubProcess) -> None:
    """A user made by the administrator has a key that works and a ticket that signs in; others may not make any."""
    status, made = hub.admin("/admin/users", {"username": "ann", "api_key": "a" * 40})
    assert (status, made) == (201, {"username": "ann", "api_key": "a" * 40})
    status, answer = hub.post("/graphql", {"query": "{viewer{entity}}"}, key="a" * 40)
    assert (status, answer["data"]["viewer"]["entity"]) == (200, "ann")
    assert hub.admin("/admin/tickets", {"username": "ann"})[0] == 201
    assert hub.admin("/admin/tickets", {"username": "nobody"})[0] == 404
    assert hub.admin("/admin/users", {"username": "bob"}, token="wrong")[0] == 401
    assert hub.admin("/admin/users", {"username": "bob", "api_key": "short"})[0] == 400
    assert hub.admin("/admin/users", {"username": 3})[0] == 400


def test_the_key_is_told_on_the_first_start_only(tmp_path: Path) -> None:
    """A restart keeps the key valid and does not tell it; the ready file is private."""
    with HubProcess(tmp_path) as hub:
        first = json.loads((tmp_path / "ready.json").read_text())
        assert (tmp_path / "ready.json").stat().st_mode & 0o777 == 0o600
        assert hub.stop() == 0
        hub.restart()
        second = json.loads((tmp_path / "ready.json").read_text())
        assert second["api_key"] is None
        assert {**second, "pid": 0, "api_key": 0} == {**first, "pid": 0, "api_key": 0}
        assert hub.query("{viewer{username}}")["viewer"]["username"] == "local"
        serve, port = ("python", "-m", "prunefleet.infra.server", "--data"), hub.url.rsplit(":", 1)[1]
        taken = hub.run(*serve, "other", "--port", port, check=False)
        assert taken.count("\n") == 1
        assert "stop what uses it, or take --port 0" in taken
        second_hub = hub.run(*serve, "hub", check=False)
        assert second_hub.count("\n") == 1
        assert "in use by another hub" in second_hub
