"""Whatever is sent, the answer is a result or one line that says why it is none: never a fault of the server's."""

import base64
import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import graphql
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunefleet.infra.server import create_app
from prunefleet.infra.wire.graphql.execute import build_schema

from support.access import OTHER, World
from support.hub import Clock, local_hub

SCHEMA = build_schema()
RELAXED = settings(max_examples=20, suppress_health_check=list(HealthCheck))
SECRET = "only-the-owner-knows"
UNSAID = ("notes", "host", "key", "metric", "summary", "display", "weights")  # of the owner's; no request says them


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with an owner whose every text is secret, and another user who sends what is below."""
    with local_hub(tmp_path_factory.mktemp("fuzz") / "data", Clock()) as hub:
        made = World(hub)
        made.keys[SECRET] = hub.auth.add_user(SECRET)
        made.make(SECRET)
        made.make(OTHER)
        yield made


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def check(answer: httpx.Response, log: pytest.LogCaptureFixture) -> None:
    """The answer is JSON, no fault, its message one line without the inside or another's data; the log is quiet."""
    assert answer.status_code < 500, (answer.text, log.text)
    body = answer.json()
    messages = [error["message"] for error in body.get("errors") or [] if isinstance(error, dict)]
    for message in [*messages, *([body["error"]] if "error" in body else [])]:
        assert "Traceback" not in message
        assert 'File "' not in message
    assert answer.status_code == 200 or messages or "error" in body
    assert not any(f"{SECRET}-{word}" in answer.text for word in UNSAID)
    assert [record for record in log.records if record.levelno >= logging.ERROR] == []


# Words that mean something here, so that examples get beyond the first check.
IDS = [
    f"{kind}:{n}" for kind in ("Run", "Sweep", "Agent", "Artifact", "ArtifactSequence", "RunFile") for n in (1, 2, 9)
]
WORDS = [f"{OTHER}-project", f"{OTHER}-run", OTHER, f"{OTHER}-model", f"{OTHER}-portfolio", SECRET, f"{SECRET}-run"]
WORDS += [*(base64.b64encode(text.encode()).decode() for text in IDS), "latest", "v0", "FULL", "", "null", "{}", "[]"]
WORDS += [
    '{"$and": [{"$or": 1}]}',
    '{"name": {"$regex": "("}}',
    '{"a": {"$in": 1}}',
    "+created_at",
    "-summary_metrics.",
]
WORDS += [
    "\x00",
    "\ud800",
    '"\\ud800"',
    "NaN",
    "-1",
    "9" * 30,
    "[" * 3000,
    '{"a":' * 2000,
    "CANCELED",
    "method: [",
    "a: *b",
]
WORDS += ["parameters: {a: {min: 1}}\nmethod: bayes", "method: random\nparameters: 7"]
WORDS += ["!!python/object:os.system {}", '{"_step": 0, "\\ud800": 1, "x": NaN}', '{"_step": 1e999, "y": -Infinity}']
TEXT = st.sampled_from(WORDS) | st.text(max_size=6)
LEAF = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | TEXT
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def fitting(kind: Any) -> st.SearchStrategy[Any]:
    """Mostly a value of that type, at times any other."""
    return st.one_of(right(kind), right(kind), right(kind), VALUE)


def right(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, graphql.GraphQLNonNull):
        return right(kind.of_type)
    if isinstance(kind, graphql.GraphQLList):
        return st.lists(fitting(kind.of_type), max_size=3)
    if isinstance(kind, graphql.GraphQLInputObjectType):
        return st.fixed_dictionaries({}, optional={name: fitting(field.type) for name, field in kind.fields.items()})
    if isinstance(kind, graphql.GraphQLEnumType):
        return st.sampled_from(sorted(kind.values))
    known = {"Int": st.integers(-5, 2**31 - 1), "Int64": st.integers(-(2**64), 2**64), "Boolean": st.booleans()}
    known |= {"Float": st.floats(), "String": TEXT, "ID": TEXT, "JSONString": TEXT}
    return known.get(kind.name, st.dictionaries(st.sampled_from(GIVEN), VALUE, max_size=6))


# Fields of inputs that are scalars in the schema, read one by one.
GIVEN = ["artifactID", "aliases", "tags", "files", "artifactFiles", "name", "entityName", "projectName", "runName"]
GIVEN += ["artifactCollectionName", "artifactPortfolioName", "artifactTypeName", "digest", "projectId", "metadata"]
GIVEN += ["artifactSequenceID", "artifactPortfolioID", "artifactCollectionNames", "type", "ttlDurationSeconds", "md5"]
GIVEN += ["description", "tagsToAdd", "tagsToDelete", "clientID", "baseArtifactID", "artifactManifestID", "historyStep"]


def selection(kind: Any, depth: int) -> str:
    """All fields that need no argument, down to a depth."""
    kind = graphql.get_named_type(kind)
    if not isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType):
        return ""
    parts = []
    for name, field in kind.fields.items():
        if any(graphql.is_required_argument(argument) for argument in field.args.values()):
            continue
        named = graphql.get_named_type(field.type)
        leaf = not isinstance(named, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType)
        below = "" if leaf or not depth else selection(named, depth - 1)
        if leaf or below:
            parts.append(f"{name} {below}".strip())
    return "{ " + " ".join(parts) + " }" if parts else ""


def operation(kind: str, name: str, field: Any) -> tuple[str, dict[str, Any]]:
    arguments = {key: argument.type for key, argument in field.args.items()}
    head = ", ".join(f"${key}: {type_}" for key, type_ in arguments.items())
    passed = ", ".join(f"{key}: ${key}" for key in arguments)
    head, passed = (f"({head})", f"({passed})") if arguments else ("", "")
    return f"{kind}{head} {{ {name}{passed} {selection(field.type, 2)} }}", arguments


assert SCHEMA.query_type is not None
assert SCHEMA.mutation_type is not None
FIELDS = [
    *(("query", name, field) for name, field in SCHEMA.query_type.fields.items()),
    *(("mutation", name, field) for name, field in SCHEMA.mutation_type.fields.items()),
]
OPERATIONS = [operation(*each) for each in FIELDS]


def send(world: World, path: str, content: bytes, **headers: str) -> httpx.Response:
    return world.request(OTHER, "POST", path, content=content, headers=headers)


def variables(world: World, log: pytest.LogCaptureFixture, data: st.DataObject) -> None:
    """One operation of the schema with variables of the right and of any other shape."""
    text, arguments = data.draw(st.sampled_from(OPERATIONS))
    given = {key: data.draw(fitting(kind)) for key, kind in arguments.items()}
    answer = send(world, "/graphql", json.dumps({"query": text, "variables": given}).encode())
    check(answer, log)


@settings(RELAXED, max_examples=60)
@given(data=st.data())
def test_no_variables_make_the_server_fail(world: World, quiet: pytest.LogCaptureFixture, data: st.DataObject) -> None:
    """Every operation, whatever its variables, is answered or refused in one line."""
    variables(world, quiet, data)


@pytest.mark.slow
@settings(RELAXED, max_examples=3000)
@given(data=st.data())
def test_no_variables_make_the_server_fail_at_length(
    world: World, quiet: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    """The same, fifty times as often."""
    variables(world, quiet, data)


@RELAXED
@given(body=st.one_of(st.binary(max_size=60), VALUE.map(lambda value: json.dumps(value).encode())))
@pytest.mark.parametrize("path", ["/graphql", f"/files/{OTHER}/{OTHER}-project/{OTHER}-run/file_stream"])
def test_no_body_makes_the_server_fail(world: World, quiet: pytest.LogCaptureFixture, path: str, body: bytes) -> None:
    """Bytes that are no JSON, JSON that is no object, objects that are no request; plain and as gzip."""
    check(send(world, path, body), quiet)
    check(send(world, path, body, **{"Content-Encoding": "gzip"}), quiet)
    check(send(world, path, gzip.compress(body), **{"Content-Encoding": "gzip"}), quiet)


LINES = st.lists(VALUE.map(json.dumps) | TEXT, max_size=4)
CHUNK = st.fixed_dictionaries({}, optional={"offset": st.integers(-5, 2**70) | LEAF, "content": LINES | VALUE})
NAMES = st.sampled_from(["wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json", "output.log", "other"])
POST = st.fixed_dictionaries(
    {},
    optional={
        "files": st.dictionaries(NAMES, CHUNK | VALUE, max_size=4) | VALUE,
        "complete": LEAF,
        "exitcode": LEAF,
        "preempting": LEAF,
        "uploaded": VALUE,
    },
)


@settings(RELAXED, max_examples=30)
@given(post=POST)
def test_no_stream_makes_server_or_pages_fail(
    world: World, quiet: pytest.LogCaptureFixture, post: dict[str, Any]
) -> None:
    """Whatever a run streams, it is taken or refused, and afterwards the run can be read and its pages be shown."""
    path = f"/files/{OTHER}/{OTHER}-project/{OTHER}-run/file_stream"
    check(send(world, path, json.dumps(post).encode()), quiet)
    run = (
        f'{{ project(name: "{OTHER}-project") {{ run(name: "{OTHER}-run") {selection(SCHEMA.type_map["Run"], 1)} }} }}'
    )
    check(world.ask(OTHER, run), quiet)
    for address in (f"/{OTHER}/{OTHER}-project/runs/{OTHER}-run", f"/{OTHER}/{OTHER}-project", "/"):
        page = world.request(OTHER, "GET", f"{address.rstrip('/')}/data.json")
        assert page.status_code == 200, page.text


@RELAXED
@given(config=st.dictionaries(TEXT, VALUE, max_size=4), summary=st.dictionaries(TEXT, VALUE, max_size=4))
def test_no_config_makes_pages_fail(
    world: World, quiet: pytest.LogCaptureFixture, config: dict[str, Any], summary: dict[str, Any]
) -> None:
    """A run of a pruning sweep may say anything of itself: the pages that show it stay up."""
    keys = ["kept", "ratio", "device", "outcome", "score", "val_top1", "latency_ratio", "why", "failure_kind", "task"]
    said = dict(zip(keys, config.values(), strict=False)) | config
    told = dict(zip(keys, summary.values(), strict=False)) | summary
    wrapped = json.dumps({key: {"value": value} for key, value in said.items()})
    text = "mutation($i: UpsertBucketInput!) { upsertBucket(input: $i) { bucket { id } } }"
    given = {"modelName": f"{OTHER}-project", "name": "said", "sweep": _sweep(world), "config": wrapped}
    content = json.dumps({"query": text, "variables": {"i": {**given, "summaryMetrics": json.dumps(told)}}})
    check(send(world, "/graphql", content.encode()), quiet)
    for address in (f"runs/{OTHER}-run", f"sweeps/{_sweep(world)}", "runs/said"):
        page = world.request(OTHER, "GET", f"/{OTHER}/{OTHER}-project/{address}/data.json")
        assert page.status_code in (200, 404), page.text


def _sweep(world: World) -> str:
    return world.hub.records.sweeps(OTHER, f"{OTHER}-project")[-1].name


@RELAXED
@given(token=st.text(max_size=12) | st.binary(max_size=12).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_no_token_makes_the_server_fail(world: World, quiet: pytest.LogCaptureFixture, token: str) -> None:
    """Addresses and cookies that were not signed here are refused, whatever they hold."""
    signed = world.hub.auth.sign(token, 60)
    for word in (token, f"{token}.{token}", signed, signed[1:]):
        path = quote(word, safe="") or "x"
        for method, address in (("PUT", f"/upload/{path}"), ("GET", f"/download/{path}/n")):
            answer = world.request(None, method, address)
            assert 400 <= answer.status_code < 500, answer.text
        assert world.hub.auth.user_of_session(word) is None
        assert world.hub.auth.user_of_ticket(word) is None
    assert [record for record in quiet.records if record.levelno >= logging.ERROR] == []


@RELAXED
@given(
    header=st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=20),
    body=st.binary(max_size=10),
)
def test_no_key_makes_the_server_fail(world: World, header: str, body: bytes) -> None:
    """Whatever stands where a key should, the answer is 401, for users and for administrators."""
    for value in (header, f"Basic {header}", f"Bearer {header}", f"Basic {base64.b64encode(header.encode()).decode()}"):
        for path in ("/graphql", "/admin/users", "/files/a/b/c/file_stream"):
            answer = world.request(None, "POST", path, content=body, headers={"Authorization": value.encode("latin-1")})
            assert answer.status_code == 401, answer.text


def test_logs_hold_no_key_and_no_address(world: World, quiet: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """When the server fails, and when operations are logged, neither keys nor signed addresses get into the log."""
    monkeypatch.setenv("PRUNEFLEET_LOG_OPERATIONS", "1")
    noisy = World.__new__(World)
    noisy.hub, noisy.keys = world.hub, world.keys
    noisy.app = create_app(world.hub, "admin-token")
    text = "mutation($i: CreateRunFilesInput!) { createRunFiles(input: $i) { files { uploadUrl } } }"
    asked = {"projectName": f"{OTHER}-project", "runName": f"{OTHER}-run", "files": ["a"]}
    url = noisy.ask(OTHER, text, {"i": asked}).json()["data"]["createRunFiles"]["files"][0]["uploadUrl"]
    token = url.rpartition("/")[2]

    def fail(*_args: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(world.hub.files, "keep", fail)
    monkeypatch.setattr(world.hub, "stream", fail)
    monkeypatch.setattr(world.hub.records, "projects", fail)
    assert noisy.request(None, "PUT", url, content=b"x").status_code == 500
    assert noisy.request(OTHER, "POST", f"/files/{OTHER}/p/r/file_stream", json={}).status_code == 500
    assert noisy.ask(OTHER, "{ models { edges { cursor } } }").status_code == 500
    assert noisy.request(OTHER, "GET", "/").status_code == 500
    assert "inside" in quiet.text
    assert "createRunFiles" in quiet.text
    for secret in (token, world.keys[OTHER], "admin-token", world.hub.auth.session_of(OTHER, 600)):
        assert secret not in quiet.text
