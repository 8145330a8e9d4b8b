"""Pages show what clients send as text: hostile names, values and lines, in every place of every page and its twin."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from prunefleet.infra.controller.contract import Suggestion
from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.file_rows import FileOwner
from prunefleet.infra.hub.store.lines import Stream

from support.access import ADMIN, World
from support.dashboard import SWEEP_YAML, WIDTHS
from support.hub import Clock, local_hub

# Free text may hold all of this; what stands in an address holds what names may.
EVIL = "\"'></td></pre></title><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}\u2028&lt;"
EVIL_NAME = '"><script>alert(1)<img src=x onerror=alert(2)>{{7*7}}'


class Found(HTMLParser):
    """What a browser would run, load or follow, as far as markup decides it."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and not (given.get("src") or "").startswith("/static/"):
            self.problems.append(f"script {given}")
        if tag in ("iframe", "object", "embed", "base", "meta") and given.get("http-equiv"):
            self.problems.append(tag)
        if tag in ("img", "link") and not (given.get("src") or given.get("href") or "").startswith("/static/"):
            self.problems.append(f"{tag} {given}")
        self.problems += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            if (given.get(name) or "/").split(":")[0].lower() in ("javascript", "data", "http", "https"):
                self.problems.append(f"{tag} {name}={given[name]}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def look(html: str) -> Found:
    found = Found()
    found.feed(html)
    found.close()
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub where everything that a client may name is hostile."""
    with local_hub(tmp_path_factory.mktemp("evil") / "data", Clock()) as hub:
        made = World(hub)
        fill(made)
        yield made


def fill(world: World) -> None:
    hub, user = world.hub, world.user(ADMIN)
    config = yaml.safe_load(SWEEP_YAML)
    config["name"] = EVIL
    config["description"] = EVIL
    config["parameters"][EVIL] = {"values": [EVIL, 1]}
    change = SweepChange(project=EVIL_NAME, config_yaml=yaml.safe_dump(config), display_name=EVIL, description=EVIL)
    sweep = hub.create_sweep(user, change)
    generic = {
        "method": "random",
        "metric": {"name": EVIL, "goal": "minimize"},
        "parameters": {EVIL: {"values": [EVIL]}},
    }
    plain = hub.create_sweep(user, SweepChange(project=EVIL_NAME, config_yaml=yaml.safe_dump(generic)))
    suggestion = Suggestion({}, {EVIL: EVIL, "ratio": {EVIL: 0.5}}, {"kind": EVIL, "reason": EVIL})
    hub.suggester.answer = lambda: suggestion  # type: ignore[attr-defined]
    for each in (sweep, plain):
        agent = hub.register_agent(user, ADMIN, EVIL_NAME, each.name, EVIL).id
        command = hub.heartbeat(agent, [])
        assert command is not None
        log(world, command["run_id"])
    log(world, EVIL_NAME)


def log(world: World, name: str) -> None:
    hub, user = world.hub, world.user(ADMIN)
    values = {EVIL: EVIL, "kept": {EVIL: 3, **WIDTHS}, "device": EVIL, "host": EVIL, "ratio": {EVIL: 0.5}, "task": EVIL}
    said = RunChange(
        project=EVIL_NAME,
        name=name,
        display_name=EVIL,
        notes=EVIL,
        tags=[EVIL],
        group=EVIL,
        job_type=EVIL,
        host=EVIL,
        program=EVIL,
        config={key: {"value": value} for key, value in values.items()},
    )
    run, _ = hub.begin_run(user, said)
    summary = {EVIL: EVIL, "outcome": EVIL, "score": 0.5, "failure_kind": EVIL, "failure_stage": EVIL, "why": EVIL}
    summary |= {"failure_message": EVIL, "latency_ratio": 0.5, "val_top1": 0.9, "nested": {EVIL: {EVIL: [EVIL]}}}
    summary |= {f"seconds_{EVIL}": 3.0, "latency_p10_ms": 0.1, "baseline_p50_ms": 0.2}
    lines = {
        Stream.HISTORY: (0, [json.dumps({"_step": 0, EVIL: 1.0, "\ud800": 1.0})]),
        Stream.CONSOLE: (0, [EVIL, f"ERROR 2026-01-01T00:00:00.0 {EVIL}", "\x1b]0;" + EVIL, '"\\ud800"']),
    }
    hub.stream(ADMIN, EVIL_NAME, name, StreamPost(lines, summary=summary))
    hub.files.keep(FileOwner.RUN, run.id, EVIL_NAME, hub.files.blobs.put([b"x"]))
    new = NewArtifact(ADMIN, EVIL_NAME, EVIL_NAME, EVIL_NAME, digest="d", run=name)
    hub.artifacts.create(user, new)


def addresses(world: World) -> list[str]:
    base = f"/{ADMIN}/{quote(EVIL_NAME, safe='')}"
    hub = world.hub
    sweeps = [f"{base}/sweeps/{sweep.name}" for sweep in hub.records.sweeps(ADMIN, EVIL_NAME)]
    runs = [f"{base}/runs/{quote(run.name, safe='')}" for run in hub.records.runs(ADMIN, EVIL_NAME)]
    evil, text = quote(EVIL_NAME, safe=""), quote(EVIL, safe="")
    nothing = [f"/{evil}/{evil}", f"{base}/sweeps/{evil}", f"{base}/runs/{evil}nothing"]
    nothing += [f"/login?next={text}", f"/login?ticket={text}"]
    return ["/", base, *sweeps, *runs, *nothing]


def test_no_page_takes_a_name_for_markup(world: World) -> None:
    """Home, project, sweep, run, sign-in and "not here": no script, handler, style or address of a client's gets in."""
    shown = 0
    for path in addresses(world):
        answer = world.request(ADMIN, "GET", path, headers={"accept": "text/html"})
        assert answer.status_code in (200, 401, 404), (path, answer.text)
        found = look(answer.text)
        assert found.problems == [], path
        assert "{{49}}" not in answer.text
        shown += "alert(" in "".join(found.texts)
    assert shown >= 8  # the hostile texts are there, as texts


def test_no_twin_takes_a_name_for_markup(world: World) -> None:
    """The parts that a page renews itself with are escaped in the same way."""
    count = 0
    for path in addresses(world):
        if path.startswith("/login"):
            continue
        answer: Any = world.request(ADMIN, "GET", f"{path.rstrip('/')}/data.json")
        assert answer.headers["content-type"] == "application/json"
        for name, html in answer.json().get("fragments", {}).items():
            assert look(html).problems == [], (path, name)
            count += "alert(" in html
    assert count > 10


def test_every_page_forbids_what_is_not_our_own(world: World) -> None:
    """Each page and twin has the policy: no inline script or style, no frame, no foreign host, no sniffing."""
    for path in addresses(world):
        headers = world.request(ADMIN, "GET", path).headers
        policy = headers["content-security-policy"]
        assert all(part in policy for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"))
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_the_cookie_is_out_of_reach(world: World) -> None:
    """No script reads the cookie, no other site sends it along with a post; over HTTPS it is sent over nothing else."""
    for scheme, secure in (("http", False), ("https", True)):
        answer = world.request(None, "POST", f"{scheme}://hub.example/login", data={"key": world.keys[ADMIN]})
        cookie = answer.headers["set-cookie"].lower()
        assert ("httponly" in cookie, "samesite=lax" in cookie, "secure" in cookie) == (True, True, secure)


def test_a_file_of_a_client_s_is_never_a_page(world: World) -> None:
    """Whatever its name, a stored file is downloaded, not shown as a page of the hub's."""
    run = world.hub.records.runs(ADMIN, EVIL_NAME)[0]
    for name in ("a.html", "a.svg", "a.js", "a.xml", "a.pdf", "a.png"):
        world.hub.files.keep(FileOwner.RUN, run.id, name, world.hub.files.blobs.put([b"<script>alert(1)</script>"]))
        files = f'files(names: ["{name}"]) {{ edges {{ node {{ directUrl }} }} }}'
        text = f"query($p: String, $r: String!) {{ project(name: $p) {{ run(name: $r) {{ {files} }} }} }}"
        asked: Any = world.ask(ADMIN, text, {"p": EVIL_NAME, "r": run.name})
        url = asked.json()["data"]["project"]["run"]["files"]["edges"][0]["node"]["directUrl"]
        headers = world.request(None, "GET", url).headers
        kind = "image/png" if name.endswith("png") else "application/octet-stream"
        assert headers["content-type"] == kind
        assert headers["content-disposition"].startswith("attachment")
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
