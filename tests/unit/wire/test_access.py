"""What is one user's is not there for another, whatever is asked: every field of the schema and every route is tried.

A new operation or route without a case here fails the first test of its table.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graphql
import pytest
from starlette.routing import Mount, Route

from prunefleet.infra import wire
from prunefleet.infra.hub.artifacts.edits import link
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.hub.store.file_rows import CollectionKind
from prunefleet.infra.hub.users.access import KINDS
from prunefleet.infra.wire.graphql import cost
from prunefleet.infra.wire.graphql.execute import build_schema
from prunefleet.infra.wire.graphql.ids import decode, encode

from support.access import ADMIN, GHOST, OTHER, Target, World, artifact_path
from support.hub import Clock, local_hub

SCHEMA = build_schema()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One hub for all tests here: each has an owner of its own."""
    with local_hub(tmp_path_factory.mktemp("access"), Clock()) as hub:
        yield World(hub)


Case = Callable[[Target], dict[str, Any]]
# Arguments of a query, and what to select of its answer.
QUERIES: dict[str, tuple[Case, str]] = {
    "viewer": (lambda t: {}, "{ username entity teams { edges { node { name } } } }"),
    "users": (lambda t: {"query": t.entity}, "{ edges { node { username } } }"),
    "entity": (lambda t: {"name": t.entity}, "{ name isTeam }"),
    "organization": (lambda t: {"name": t.entity}, "{ name }"),
    "serverInfo": (lambda t: {}, "{ features { name } }"),
    "models": (lambda t: {"entityName": t.entity}, "{ edges { node { name } } }"),
    "model": (lambda t: {"entityName": t.entity, "name": t.project}, "{ name runs { edges { node { name } } } }"),
    "project": (lambda t: {"entityName": t.entity, "name": t.project}, "{ name sweeps { edges { node { name } } } }"),
    "artifact": (lambda t: {"id": t.artifact_id}, "{ id files { edges { node { name directUrl } } } }"),
    "artifactCollection": (lambda t: {"id": t.sequence_id}, "{ name }"),
    "clientIDMapping": (lambda t: {"clientID": t.client}, "{ serverID }"),
}


def _place(target: Target, **more: Any) -> dict[str, Any]:
    return {"entityName": target.entity, "projectName": target.project, **more}


def _aliases(target: Target) -> dict[str, Any]:
    alias = _place(target, artifactCollectionName=target.collection, alias="latest")
    return {"artifactID": target.artifact_id, "aliases": [alias]}


def _tags(target: Target) -> dict[str, Any]:
    return _place(target, artifactCollectionName=target.collection, tags=[{"tagName": "t"}])


def _files(target: Target) -> dict[str, Any]:
    return {"artifactFiles": [{"artifactID": target.artifact_id, "name": "a", "md5": "x"}]}


# The input of a mutation. Those in OPEN are asked about an artifact that is not committed yet.
MUTATIONS: dict[str, Case] = {
    "upsertModel": lambda t: {"entityName": t.entity, "name": t.project},
    "upsertBucket": lambda t: {"entityName": t.entity, "modelName": t.project, "name": t.run, "notes": "changed"},
    "deleteRun": lambda t: {"id": t.run_id},
    "stopRun": lambda t: {"id": t.run_id},
    "updateRunState": lambda t: {"id": t.run_id, "state": "failed"},
    "rewindRun": lambda t: _place(t, runName=t.run, metricName="_step", metricValue=0.0),
    "notifyScriptableRunAlert": lambda t: _place(t, runName=t.run, title="a", text="b"),
    "upsertSweep": lambda t: {"id": t.sweep_id, "state": "CANCELED"},
    "enqueueSweepRun": lambda t: {"id": t.sweep_id, "config": '{"lr": {"value": 0.5}}'},
    "createAgent": lambda t: _place(t, sweep=t.sweep, host="h"),
    "agentHeartbeat": lambda t: {"id": t.agent_id, "runState": "{}"},
    "createRunFiles": lambda t: _place(t, runName=t.run, files=["a.txt"]),
    "markRunFilesUploaded": lambda t: _place(t, runName=t.run, files=["a.txt"]),
    "deleteFiles": lambda t: {"files": [t.file_id]},
    "createArtifact": lambda t: _place(
        t, artifactTypeName="model", artifactCollectionName=t.collection, digest="d", runName=t.run
    ),
    "createArtifactManifest": lambda t: {"artifactID": t.artifact_id, "name": "m", "digest": "", "type": "FULL"},
    "updateArtifactManifest": lambda t: {"artifactManifestID": t.manifest_id, "digest": "x"},
    "createArtifactFiles": _files,
    "completeMultipartUploadArtifact": lambda t: {"artifactID": t.artifact_id},
    "commitArtifact": lambda t: {"artifactID": t.artifact_id},
    "useArtifact": lambda t: _place(t, artifactID=t.artifact_id, runName=t.run),
    "updateArtifact": lambda t: {"artifactID": t.artifact_id, "description": "changed"},
    "deleteArtifact": lambda t: {"artifactID": t.artifact_id, "deleteAliases": True},
    "addAliases": _aliases,
    "deleteAliases": _aliases,
    "linkArtifact": lambda t: _place(t, artifactID=t.artifact_id, artifactPortfolioName=t.portfolio),
    "unlinkArtifact": lambda t: {"artifactID": t.artifact_id, "artifactPortfolioID": t.portfolio_id},
    "updateArtifactSequence": lambda t: {"artifactSequenceID": t.sequence_id, "description": "changed"},
    "updateArtifactPortfolio": lambda t: {"artifactPortfolioID": t.portfolio_id, "description": "changed"},
    "moveArtifactSequence": lambda t: {"artifactSequenceID": t.sequence_id, "destinationArtifactTypeName": "other"},
    "deleteArtifactSequence": lambda t: {"artifactSequenceID": t.sequence_id},
    "deleteArtifactPortfolio": lambda t: {"artifactPortfolioID": t.portfolio_id},
    "createArtifactCollectionTagAssignments": _tags,
    "deleteArtifactCollectionTagAssignments": _tags,
}
OPEN = {"createArtifactManifest", "updateArtifactManifest", "createArtifactFiles"}
REFUSED_TO_ALL = {"rewindRun", "completeMultipartUploadArtifact"}
NULL_TO_ALL = {"organization"}
# Two ways of one mutation: by id, where the table above has the name, and the other way round.
FURTHER: dict[str, Case] = {
    "upsertBucket": lambda t: {"id": t.run_id, "notes": "changed"},
    "upsertSweep": lambda t: _place(t, config="method: random\nparameters: {lr: {min: 0.0, max: 1.0}}\n"),
    "linkArtifact": lambda t: _place(t, clientID=t.client, artifactPortfolioName=t.portfolio),
    "updateArtifactSequence": lambda t: {"artifactSequenceID": t.portfolio_id, "description": "changed"},
}


def test_every_field_has_a_case() -> None:
    """What the schema can be asked or told is tried below, all of it."""
    assert SCHEMA.query_type is not None
    assert SCHEMA.mutation_type is not None
    assert set(QUERIES) == set(SCHEMA.query_type.fields)
    assert set(MUTATIONS) == set(SCHEMA.mutation_type.fields)


def _query(name: str) -> tuple[str, Callable[[Target], dict[str, Any]]]:
    assert SCHEMA.query_type is not None
    arguments = SCHEMA.query_type.fields[name].args
    case, selection = QUERIES[name]
    given = case(GHOST)
    names = ", ".join(f"${key}: {arguments[key].type}" for key in given)
    passed = ", ".join(f"{key}: ${key}" for key in given)
    head, body = (f"query({names})", f"{name}({passed})") if given else ("query", name)
    return f"{head} {{ {body} {selection} }}", case


def _mutation(name: str, case: Case) -> tuple[str, Callable[[Target], dict[str, Any]]]:
    assert SCHEMA.mutation_type is not None
    kind = SCHEMA.mutation_type.fields[name].args["input"].type
    return f"mutation($input: {kind}) {{ {name}(input: $input) {{ __typename }} }}", lambda t: {"input": case(t)}


ASKED = [
    *((f"Query.{name}", *_query(name)) for name in QUERIES),
    *((f"Mutation.{name}", *_mutation(name, case)) for name, case in MUTATIONS.items()),
    *((f"Mutation.{name} (other way)", *_mutation(name, case)) for name, case in FURTHER.items()),
]


def _target(world: World, name: str) -> Target:
    target = world.owner()
    if name.partition(".")[2] not in OPEN:
        return target
    number = decode("Artifact", world.open_artifact(target.entity))
    ids = {"artifact_id": encode("Artifact", number), "manifest_id": encode("ArtifactManifest", number)}
    return Target(**{**vars(target), **ids})


@pytest.mark.parametrize(("name", "text", "case"), ASKED, ids=[name for name, _, _ in ASKED])
def test_another_s_things_are_not_there(world: World, name: str, text: str, case: Case) -> None:
    """Another user's key gets the very answer for what never was, and changes nothing; the owner gets on."""
    target = _target(world, name)
    before = world.contents()
    of_ann, of_nobody = world.ask(OTHER, text, case(target)), world.ask(OTHER, text, case(GHOST))
    assert of_ann.status_code == of_nobody.status_code, (of_ann.text, of_nobody.text)
    assert target.hide(of_ann.text) == GHOST.hide(of_nobody.text)
    assert world.contents() == before
    field = name.partition(".")[2].partition(" ")[0]
    if field in REFUSED_TO_ALL | NULL_TO_ALL:
        return
    for who, about in ((target.entity, target), (ADMIN, _target(world, name))):
        answer = world.ask(who, text, case(about))
        assert answer.status_code == 200, (who, answer.text)
        assert answer.json()["data"][field] is not None, who


def test_every_kind_of_id_has_an_owner() -> None:
    """What stands in ids that clients may send can be traced to an entity, each kind of it."""
    sent = {
        "Run",
        "Sweep",
        "Agent",
        "Artifact",
        "ArtifactManifest",
        "RunFile",
        *(kind.value for kind in CollectionKind),
    }
    assert sent <= set(KINDS)


def test_ids_are_read_in_one_place() -> None:
    """No module of the wire but the look-ups turns an id into a number, so none can forget whose it is."""
    sources = Path(wire.__file__).parent.rglob("*.py")
    readers = {path.name for path in sources if re.search(r"(?<![.\w])decode\(", path.read_text())}
    assert readers == {"lookups.py", "ids.py"}


def _selection(kind: Any, depth: int) -> str:
    """Every field below a type down to a depth, with an argument for each that must have one."""
    given = {"name": '"x"', "sweepName": '"x"', "agentName": '"x"', "aliasName": '"latest"', "specs": "[]"}
    given |= {"liveKeys": "[]", "storageLayout": '"V2"', "manifestVersion": '"1"'}
    kind = graphql.get_named_type(kind)
    if not isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType):
        return ""
    parts = []
    for name, field in kind.fields.items():
        below = _selection(field.type, depth - 1) if depth else None
        leaf = not isinstance(
            graphql.get_named_type(field.type), graphql.GraphQLObjectType | graphql.GraphQLInterfaceType
        )
        if not leaf and not below:
            continue
        wanted = {key: given[key] for key, arg in field.args.items() if graphql.is_required_argument(arg)}
        passed = "(" + ", ".join(f"{key}: {value}" for key, value in wanted.items()) + ")" if wanted else ""
        parts.append(f"{name}{passed} {below or ''}".strip())
    return "{ " + " ".join(parts) + " }" if parts else ""


@pytest.mark.parametrize("start", ["artifact", "run"])
def test_no_field_leads_across(world: World, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an administrator has tied two users' things together, each user sees their own end of it alone."""
    monkeypatch.setattr(cost, "MAX_FIELDS", 1_000_000)
    anns, own = world.owner(), world.owner()
    other, owner = own.entity, anns.entity
    hub, admin = world.hub, world.user(ADMIN)
    ann_run, own_run = decode("Run", anns.run_id), decode("Run", own.run_id)
    ann_artifact, own_artifact = decode("Artifact", anns.artifact_id), decode("Artifact", own.artifact_id)
    hub.artifacts.use(ann_run, own_artifact)
    hub.artifacts.use(own_run, ann_artifact)
    hub.store.write(lambda c: link(c, admin, own_artifact, (owner, anns.project, anns.portfolio), 0.0))
    hub.store.write(lambda c: link(c, admin, ann_artifact, (other, own.project, own.portfolio), 0.0))
    ties = {"artifact": "usedBy { edges { node %s } } artifactMemberships { edges { node %s } } aliases %s"}
    ties["run"] = "inputArtifacts { totalCount edges { node %s } } outputArtifacts { edges { node %s } } project %s"
    kinds = {
        "artifact": ("Run", "ArtifactCollectionMembership", "ArtifactAlias"),
        "run": ("Artifact", "Artifact", "Project"),
    }
    below = ties[start] % tuple(_selection(SCHEMA.type_map[kind], 3) for kind in kinds[start])
    if start == "artifact":
        text = f'{{ artifact(id: "{own.artifact_id}") {{ {below} }} }}'
    else:
        text = f'{{ project(name: "{own.project}") {{ run(name: "{own.run}") {{ {below} }} }} }}'
    shown = world.ask(other, text)
    assert shown.json()["data"], shown.text
    assert other in shown.text
    assert owner not in shown.text


# Which address of a route to try; a text says why there is nothing of anybody's behind it.
ROUTES: dict[str, Callable[[Target], tuple[str, str, Any]] | str] = {
    "/graphql": "each field is tried above",
    "/files/{entity}/{project}/{run}/file_stream": lambda t: (
        "POST",
        f"/files/{t.entity}/{t.project}/{t.run}/file_stream",
        {"files": {"wandb-history.jsonl": {"offset": 5, "content": ["{}"]}}, "complete": True},
    ),
    "/artifactsV2/{place:path}": lambda t: ("GET", artifact_path(t), None),
    "/upload/{token}": "signed addresses have tests of their own",
    "/download/{token}/{name:path}": "signed addresses have tests of their own",
    "/sdk/otel/v1/metrics": "taken and thrown away",
    "/sdk/otel/v1/logs": "taken and thrown away",
    "/sdk/otel/v1/traces": "taken and thrown away",
    "/admin/users": lambda t: ("POST", "/admin/users", {"username": t.entity}),
    "/admin/perform/{operation}": lambda t: ("POST", "/admin/perform/users.remove", {"username": t.entity}),
    "/admin/tickets": lambda t: ("POST", "/admin/tickets", {"username": t.entity}),
    "/admin/sweeps/{entity}/{project}/{name}": lambda t: (
        "DELETE",
        f"/admin/sweeps/{t.entity}/{t.project}/{t.sweep}",
        None,
    ),
    "/join/tokens": lambda t: ("POST", "/join/tokens", {"sweep": f"{t.entity}/{t.project}/{t.sweep}"}),
    "/join": "a token says for whom; test_host_keys.py",
    "/leave": "a key ends itself; test_host_keys.py",
    "/wheel/{name}.whl": "this package, for everybody",
    "/static": "the pages' own files",
    "/healthz": "whether the hub is well, and nothing else",
    "/login": "the form",
    "/logout": "the cookie's end",
    "/authorize": "leads to the form",
    "/": lambda t: ("GET", "/", None),
    "/data.json": lambda t: ("GET", "/data.json", None),
    "/{entity}/{project}": lambda t: ("GET", f"/{t.entity}/{t.project}", None),
    "/{entity}/{project}/data.json": lambda t: ("GET", f"/{t.entity}/{t.project}/data.json", None),
    "/{entity}/{project}/sweeps/{name}": lambda t: ("GET", f"/{t.entity}/{t.project}/sweeps/{t.sweep}", None),
    "/{entity}/{project}/sweeps/{name}/agents.json": lambda t: (
        "POST",
        f"/{t.entity}/{t.project}/sweeps/{t.sweep}/agents.json",
        {"action": "drain", "agent": t.agent},
    ),
    "/{entity}/{project}/sweeps/{name}/agents": "the form has tests with the pages",
    "/{entity}/{project}/sweeps/{name}/data.json": lambda t: (
        "GET",
        f"/{t.entity}/{t.project}/sweeps/{t.sweep}/data.json",
        None,
    ),
    "/{entity}/{project}/sweeps/{name}/invite": lambda t: (
        "POST",
        f"/{t.entity}/{t.project}/sweeps/{t.sweep}/invite",
        None,
    ),
    "/{entity}/{project}/runs/{name}": lambda t: ("GET", f"/{t.entity}/{t.project}/runs/{t.run}", None),
    "/{entity}/{project}/runs/{name}/data.json": lambda t: (
        "GET",
        f"/{t.entity}/{t.project}/runs/{t.run}/data.json",
        None,
    ),
    "/{entity}/{project}/workspace": "leads to the project's page",
    "/{entity}/{project}/table": "leads to the project's page",
    "/{entity}/{project}/sweeps": "leads to the project's page",
    "/{entity}/{project}/runs": "leads to the project's page",
    "/{entity}/{project}/runs/{name}/{tab}": "leads to the run's page",
}


def test_every_route_has_a_case(world: World) -> None:
    """What the server answers at is tried below, or says why not."""
    paths = {route.path for route in world.app.routes if isinstance(route, Route | Mount)}
    assert len(world.app.routes) >= len(paths)
    assert paths == set(ROUTES)


@pytest.mark.parametrize("path", [path for path, case in ROUTES.items() if not isinstance(case, str)])
def test_another_s_addresses_are_not_there(world: World, path: str) -> None:
    """Pages, their twins, streams and files of another's answer as for what never was, and nothing changes."""
    case = ROUTES[path]
    assert not isinstance(case, str)
    target = world.owner()
    before = world.contents()
    answers = []
    for about in (target, GHOST):
        method, address, body = case(about)
        answer = world.request(OTHER, method, address, **({} if body is None else {"json": body}))
        answers.append((answer.status_code, about.hide(answer.text)))
    assert answers[0] == answers[1]
    assert target.hide(answers[0][1]) == answers[0][1]
    assert world.contents() == before
    if path.startswith("/admin"):
        assert answers[0][0] == 401
        return
    for who in (target.entity, ADMIN):
        method, address, body = case(target)
        answer = world.request(who, method, address, **({} if body is None else {"json": body}))
        assert answer.status_code in (200, 201), answer.text
        assert target.entity in answer.text or method == "POST"


def test_a_user_may_not_make_things_for_another(world: World) -> None:
    """Runs, sweeps and projects cannot be put into another's entity, whether its project is there or not."""
    ann = world.owner()
    before = world.contents()
    for project in (ann.project, "new"):
        text = "mutation($i: UpsertBucketInput!) { upsertBucket(input: $i) { inserted } }"
        given = {"entityName": ann.entity, "modelName": project, "name": "mine", "host": "h"}
        answer = world.ask(OTHER, text, {"i": given})
        assert answer.status_code == 404
        (error,) = answer.json()["errors"]
        assert error["message"] == (
            f"entity: got {ann.entity!r}, which is not here for you; there are no teams: "
            "set WANDB_ENTITY to 'mallory', or unset it"
        )
    assert world.contents() == before


def test_an_administrator_makes_things_for_another(world: World) -> None:
    """An administrator may work in any entity that is there; its owner sees what was made."""
    ann = world.owner().entity
    world.hub.begin_run(world.user(ADMIN), RunChange(entity=ann, project="p", name="r", host="h"))
    assert world.request(ann, "GET", f"/{ann}/p/runs/r").status_code == 200
    assert world.request(OTHER, "GET", f"/{ann}/p/runs/r").status_code == 404


def test_a_session_of_a_user_who_is_gone_is_none(world: World) -> None:
    """A cookie names a user who must be there."""
    cookie = world.hub.auth.session_of("gone", 60)
    answer = world.request(None, "GET", "/data.json", headers={"Cookie": f"prunefleet_session={cookie}"})
    assert answer.status_code == 401


def test_the_viewer_has_no_teams(world: World) -> None:
    """The client is told that there are none, so it offers none."""
    answer = world.ask(OTHER, "{ viewer { teams { edges { node { name } } } } }")
    assert json.loads(answer.text)["data"]["viewer"]["teams"]["edges"] == []
