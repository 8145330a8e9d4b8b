"""The unmodified client over TLS, and behind a proxy that puts a path before every address."""

import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.hub import HubProcess, basic
from support.proxy import proxied

# A run with rows, a file and an artifact, read back through the public interface.
WHOLE = """
import json, os, pathlib, wandb

folder = pathlib.Path(os.environ["WANDB_DIR"]) / "made"
folder.mkdir(exist_ok=True)
(folder / "a.txt").write_text("a file")
with wandb.init(project="front", id="one") as run:
    run.log({"loss": 0.5})
    run.save(str(folder / "a.txt"), base_path=str(folder))
    artifact = wandb.Artifact("model", "model")
    artifact.add_file(str(folder / "a.txt"))
    run.log_artifact(artifact).wait()

api = wandb.Api()
run = api.run("local/front/one")
got = api.artifact("local/front/model:latest")
print("TOLD", json.dumps({
    "state": run.state, "loss": run.summary["loss"], "url": run.url,
    "file": run.file("a.txt").download(root=str(folder / "down"), replace=True).read(),
    "direct": run.file("a.txt").direct_url,
    "artifact": pathlib.Path(got.download(root=str(folder / "art")), "a.txt").read_text(),
    "entry": pathlib.Path(got.get_entry("a.txt").download(root=str(folder / "entry"))).read_text(),
}))
"""


RUN = 'mutation { upsertBucket(input: {modelName: "front", name: "one", host: "h"}) { inserted } }'
FILES = """mutation {
  createRunFiles(input: {projectName: "front", runName: "one", files: ["a.txt"]}) { files { uploadUrl } } }"""


def upload_address(hub: HubProcess) -> str:
    """Where a file of the run may be put, as the hub says."""
    hub.query(RUN)
    return str(hub.query(FILES)["createRunFiles"]["files"][0]["uploadUrl"])


def told(hub: HubProcess, **env: str) -> dict[str, object]:
    """What the program above found, run in the hub's environment."""
    output = hub.run("python", "-c", WHOLE, WANDB_SILENT="true", **env)
    (line,) = [line for line in output.splitlines() if line.startswith("TOLD ")]
    return dict(json.loads(line.removeprefix("TOLD ")))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    argv += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def secured(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    options = ["--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem")]
    with HubProcess(tmp_path_factory.mktemp("secured"), options=options) as hub:
        yield hub


@pytest.mark.openssl
def test_the_client_works_over_tls(secured: HubProcess, certificate: Path) -> None:
    """With the certificate trusted, a run with files goes over HTTPS, and every address that is handed out does too."""
    assert secured.url.startswith("https://")
    cert = str(certificate / "cert.pem")
    found = told(secured, SSL_CERT_FILE=cert, REQUESTS_CA_BUNDLE=cert)
    assert (found["state"], found["loss"], found["file"]) == ("finished", 0.5, "a file")
    assert (found["artifact"], found["entry"]) == ("a file", "a file")
    assert str(found["direct"]).startswith(secured.url)


@pytest.mark.openssl
def test_pages_over_tls_have_a_secure_cookie(secured: HubProcess, certificate: Path) -> None:
    """Signing in over HTTPS sets a cookie that travels over nothing else; who does not trust the hub gets no page."""
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: object) -> None:
            return None

    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), Stay)
    with pytest.raises(urllib.error.HTTPError) as answer:
        opener.open(f"{secured.url}/login", f"key={secured.api_key}".encode())
    with answer.value:
        cookie = answer.value.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("secure", "httponly", "samesite=lax"))
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        urllib.request.urlopen(f"{secured.url}/login")


@pytest.mark.openssl
def test_an_administrator_s_command_reaches_a_hub_with_tls(secured: HubProcess) -> None:
    """`prunefleet hub users` on the same machine trusts the certificate by its bytes."""
    output = secured.run("python", "-m", "prunefleet.infra.cli", "hub", "users", "--data", str(secured.folder / "hub"))
    assert "local" in output


PROXIES = {
    # The setting alone; the proxy passes the path on as it came, or without its prefix.
    "kept": (["--root-path", "/hub"], False, {}),
    "stripped": (["--root-path", "/hub"], True, {}),
    # No setting, but a trusted proxy says it.
    "told": (["--trusted-proxies", "127.0.0.1"], True, {"X-Forwarded-Prefix": "/hub"}),
}


@pytest.mark.parametrize("way", PROXIES)
def test_the_client_works_behind_a_proxy_with_a_path(way: str, tmp_path: Path) -> None:
    """A run with files goes through the prefix, and every address that is handed out has it."""
    options, strips, says = PROXIES[way]
    with (
        HubProcess(tmp_path, options=options) as hub,
        proxied(hub.url, "/hub", strips=strips, says=says) as url,
    ):
        hub.url = url
        if way != "kept":
            address = upload_address(hub)
            assert address.startswith(f"{url}/upload/")
            with urllib.request.urlopen(urllib.request.Request(address, b"x", method="PUT")) as answer:
                assert answer.status == 200
        else:
            found = told(hub)
            assert (found["state"], found["loss"], found["file"]) == ("finished", 0.5, "a file")
            assert (found["artifact"], found["entry"]) == ("a file", "a file")
            assert str(found["direct"]).startswith(f"{url}/download/")
        pages_stay_below(hub, url)


def pages_stay_below(hub: HubProcess, url: str) -> None:
    """Sign in through the proxy and look at pages: every address in them has the prefix."""
    with httpx.Client(base_url=url) as http:
        first = http.get("/", headers={"accept": "text/html"})
        assert first.headers["location"].startswith("/hub/login?next=%2Fhub%2F")
        answer = http.post("/login", data={"key": hub.api_key})
        assert answer.headers["location"] == "/hub/"
        assert "path=/hub" in answer.headers["set-cookie"].lower()
        for path in ("/", "/local/front", "/local/front/runs/one", "/local/nothing"):
            page = http.get(path)
            found = re.findall(r'(?:href|src|action|data-twin|data-runs)="(/[^"]*)"', page.text)
            assert found
            assert [each for each in found if not each.startswith("/hub/")] == []
        for each in re.findall(r'(?:href|src)="/hub(/static/[^"]*)"', http.get("/local/front").text):
            assert http.get(each).status_code == 200
        assert http.get("/local/front/data.json").status_code == 200
        assert http.get("/local/front/workspace").headers["location"] == "/hub/local/front"
        assert http.post("/logout").headers["location"] == "/hub/login"


def test_forwarded_headers_are_not_believed(tmp_path: Path) -> None:
    """Without a setting, what a client says of itself changes no address."""
    with HubProcess(tmp_path) as hub:
        upload_address(hub)
        lies = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"}
        lies |= {"X-Forwarded-For": "203.0.113.9", "Forwarded": "host=evil.example;proto=https"}
        request = urllib.request.Request(
            f"{hub.url}/graphql",
            json.dumps({"query": FILES}).encode(),
            {"Authorization": basic(hub.api_key), "Content-Type": "application/json", **lies},
        )
        with urllib.request.urlopen(request) as answer:
            address = json.load(answer)["data"]["createRunFiles"]["files"][0]["uploadUrl"]
        assert address.startswith(f"{hub.url}/upload/")
