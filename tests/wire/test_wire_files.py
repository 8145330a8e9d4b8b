"""Run files on the wire, and the signed addresses that carry their bytes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.infra.server import create_app
from prunefleet.infra.wire import file_routes as files
from prunefleet.infra.wire.artifacts import operations

from support.hub import Clock, basic, first_user, local_hub

CREATE = """mutation CreateRunFiles($files: [String!]!) {
  createRunFiles(input: {entityName: null, projectName: "demo", runName: "run1", files: $files}) {
    runID uploadHeaders files { name uploadUrl } } }"""
LIST = """query RunFiles($pattern: String) { project(name: "demo") { run(name: "run1") {
  fileCount files(pattern: $pattern) {
    edges { node { id name url directUrl sizeBytes mimetype updatedAt md5 } cursor }
    pageInfo { endCursor hasNextPage } } } } }"""


class Client:
    """An HTTP client of a hub in this process, as its first user."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        key = hub.auth.ensure_first_user() or ""
        hub.begin_run(first_user(hub), RunChange(project="demo", name="run1"))
        self.hub, self.clock = hub, clock
        self._app = create_app(hub, "token")
        self._headers = {"Authorization": basic(key)}

    def request(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One request, without a key."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://hub.example:8080") as http:
                return await http.request(method, url, **more)

        return asyncio.run(send())

    def put(self, url: str, content: bytes) -> httpx.Response:
        return self.request("PUT", url, content=content)

    def ask(self, query: str, **variables: object) -> tuple[int, Any]:
        body = {"query": query, "variables": variables}
        answer = self.request("POST", "/graphql", json=body, headers=self._headers)
        return answer.status_code, answer.json()

    def upload_url(self, name: str) -> str:
        status, answer = self.ask(CREATE, files=[name])
        assert status == 200, answer
        return str(answer["data"]["createRunFiles"]["files"][0]["uploadUrl"])

    def files(self, pattern: str | None = None) -> list[dict[str, Any]]:
        run = self.ask(LIST, pattern=pattern)[1]["data"]["project"]["run"]
        return [edge["node"] for edge in run["files"]["edges"]]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    clock = Clock()
    with local_hub(tmp_path / "hub", clock) as hub:
        yield Client(hub, clock)


def test_bytes_come_and_go_by_signed_addresses_without_a_key(client: Client) -> None:
    """An upload needs its address alone, is there at once, and downloads byte for byte, whole or in part."""
    url = client.upload_url("media/a b.bin")
    assert url.startswith("http://hub.example:8080/upload/")
    content = bytes(range(256)) * 9000  # more than one chunk
    assert client.put(url, content=content).status_code == 200
    (file,) = client.files()
    assert (file["name"], file["sizeBytes"]) == ("media/a b.bin", len(content))
    answer = client.request("GET", file["directUrl"])
    assert answer.content == content
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")
    part = client.request("GET", file["url"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "script.js"])
def test_nothing_uploaded_can_run_in_a_browser(client: Client, name: str) -> None:
    """What somebody uploaded is handed out as bytes to save, never as a page or a script of the hub's."""
    client.put(client.upload_url(name), content=b"<script>alert(1)</script>")
    answer = client.request("GET", client.files()[0]["directUrl"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_an_address_ends(client: Client) -> None:
    """After its time an address is refused with 403, which the client answers by asking for a new one."""
    late = client.upload_url("a.txt")
    client.put(client.upload_url("b.txt"), content=b"b")
    url = client.files()[0]["directUrl"]
    client.clock.pass_by(7 * 3600)
    assert client.put(late, content=b"a").status_code == 403
    answer = client.request("GET", url)
    assert answer.status_code == 403
    assert "expired" in answer.json()["error"]
    assert [file["name"] for file in client.files()] == ["b.txt"]


def test_a_changed_address_is_refused(client: Client) -> None:
    """An address that was altered, or made for the other direction, opens nothing."""
    url = client.upload_url("a.txt")
    token = urlsplit(url).path.rpartition("/")[2]
    client.put(url, content=b"a")
    down = urlsplit(client.files()[0]["directUrl"]).path.split("/")[2]
    for method, path in (
        ("PUT", f"/upload/{token}x"),
        ("PUT", f"/upload/x{token}"),
        ("PUT", "/upload/x"),
        ("PUT", f"/upload/{down}"),
        ("GET", f"/download/{token}/a.txt"),
        ("GET", f"/download/{client.hub.auth.session_of('local', 60)}/a.txt"),
        ("GET", "/download/..%2f..%2fetc/passwd"),
    ):
        assert client.request(method, path).status_code in (401, 403, 404), path
    assert client.request("GET", "/artifactsV2/default/local/demo/c/x/y/00/n").status_code == 401


def test_an_upload_for_a_deleted_run_is_refused(client: Client) -> None:
    """Bytes for a run that is gone meanwhile end in 404, not in an error of the server's."""
    url = client.upload_url("a.txt")
    run = client.hub.records.run("local", "demo", "run1")
    assert run is not None
    client.hub.run_edits.delete(run.id, with_artifacts=False)
    assert client.put(url, content=b"a").status_code == 404


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", "a\\..\\b", "x\x00"])
def test_a_name_that_climbs_gets_no_address(client: Client, name: str) -> None:
    """A file name that could leave a folder is refused in one line, for the whole request."""
    status, answer = client.ask(CREATE, files=["good.txt", name])
    assert status == 400
    assert "use a relative path" in answer["errors"][0]["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.lists(st.sampled_from(["..", ".", "", "a", "b.txt", "\\", "%2e%2e", "~"]), max_size=6).map("/".join))
def test_no_name_makes_a_file_outside_the_data_folder(client: Client, tmp_path: Path, name: str) -> None:
    """Whatever names are uploaded, the data folder holds nothing but blobs named by their content."""
    status, answer = client.ask(CREATE, files=[name])
    if status == 200:
        client.put(answer["data"]["createRunFiles"]["files"][0]["uploadUrl"], content=name.encode())
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    own = {"hub.db", "hub.db-wal", "hub.db-shm", "secret", "lock"}
    assert all(len(path.name) == 64 if "blobs" in path.parts else path.name in own for path in made), made


MUTATIONS = sorted({**files.RESOLVERS["Mutation"], **operations.RESOLVERS["Mutation"]})
FIELDS = ["artifactID", "aliases", "tags", "files", "artifactFiles", "name", "entityName", "projectName", "runName"]
FIELDS += ["artifactCollectionName", "artifactPortfolioName", "artifactTypeName", "digest", "projectId", "metadata"]
FIELDS += ["artifactSequenceID", "artifactCollectionNames", "type", "ttlDurationSeconds", "description", "tagsToAdd"]
LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
LEAF = LEAF | st.sampled_from(["demo", "run1", "w", "QXJ0aWZhY3Q6MQ==", "QXJ0aWZhY3RTZXF1ZW5jZTox", "FULL"])
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(MUTATIONS), value=st.dictionaries(st.sampled_from(FIELDS), VALUE) | VALUE)
def test_no_input_makes_the_server_fail(client: Client, name: str, value: object) -> None:
    """Whatever a mutation is sent, the answer is a result or a refusal that says why."""
    kind = name[0].upper() + name[1:]
    status, answer = client.ask(
        f"mutation($input: {kind}Input!) {{ {name}(input: $input) {{ __typename }} }}", input=value
    )
    assert status in (200, 400, 403, 404, 409), (status, answer)


def test_lists_are_paged_and_selected(client: Client) -> None:
    """A pattern of SQL's selects; the number of files is that of the run."""
    for name in ("a.txt", "media/b.txt", "media/c.txt"):
        client.put(client.upload_url(name), content=name.encode())
    assert [file["name"] for file in client.files("media/%")] == ["media/b.txt", "media/c.txt"]
    page = """query { project(name: "demo") { run(name: "run1") { fileCount files(first: 2) {
      edges { node { name } cursor } pageInfo { hasNextPage endCursor } } } } }"""
    run = client.ask(page)[1]["data"]["project"]["run"]
    assert (run["fileCount"], run["files"]["pageInfo"]["hasNextPage"]) == (3, True)
    assert [edge["node"]["name"] for edge in run["files"]["edges"]] == ["a.txt", "media/b.txt"]


def test_an_artifact_s_file_must_have_the_announced_content(client: Client) -> None:
    """Bytes with another MD5 than announced are refused, so that a version holds what its manifest says."""
    create = """mutation($input: CreateArtifactInput!) { createArtifact(input: $input) { artifact { id state } } }"""
    given = {"projectName": "demo", "artifactTypeName": "model", "artifactCollectionName": "w", "digest": "d"}
    artifact = client.ask(create, input={**given, "aFieldOfTomorrow": 1})[1]["data"]["createArtifact"]["artifact"]
    files = """mutation($input: CreateArtifactFilesInput!) { createArtifactFiles(input: $input) {
      files { edges { node { uploadUrl storagePath uploadMultipartUrls { uploadID } artifact { id } } } } } }"""
    spec = {"artifactID": artifact["id"], "name": "a", "md5": "XUFAKrxLKna5cZ2REBfFkg==", "tomorrow": True}
    answer = client.ask(files, input={"artifactFiles": [spec], "storageLayout": "V2", "alsoNew": []})[1]
    (edge,) = answer["data"]["createArtifactFiles"]["files"]["edges"]
    assert client.put(edge["node"]["uploadUrl"], content=b"other").status_code == 400
    stored = client.put(edge["node"]["uploadUrl"], content=b"hello")
    assert stored.status_code == 200
    assert stored.headers["etag"]
