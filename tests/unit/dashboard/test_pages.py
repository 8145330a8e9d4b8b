"""The dashboard's addresses without a browser: who may look, what is answered, what the headers promise."""

import hashlib
import html
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from prunefleet.infra.dashboard import pages
from prunefleet.infra.dashboard.session import COOKIE, local
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.runs import RunChange
from prunefleet.objective.devices import MeasurementRequest, queue

from support.dashboard_hub import Scene, served


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("pages") / "hub")
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def base(scene: Scene) -> Iterator[str]:
    with served(scene) as address:
        yield address


@pytest.fixture
def stranger(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, headers={"accept": "text/html"}) as made:
        yield made


@pytest.fixture
def client(scene: Scene, stranger: httpx.Client) -> httpx.Client:
    stranger.cookies.set(COOKIE, scene.hub.auth.session_of("local", 600))
    return stranger


@pytest.mark.parametrize("path", ["/", "/local/demo", "/local/demo/sweeps/x", "/local/demo/runs/x"])
def test_strangers_are_led_to_the_form(stranger: httpx.Client, path: str) -> None:
    """A person without a cookie is sent to sign in and back; a program gets 401, and neither learns what is there."""
    answer = stranger.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2F")
    twin = stranger.get(f"{path.rstrip('/')}/data.json", headers={"accept": "application/json"})
    assert (twin.status_code, twin.json()) == (401, {"error": "sign in at /login"})


def test_a_key_becomes_a_cookie_that_scripts_cannot_read(scene: Scene, stranger: httpx.Client) -> None:
    """The right key is answered with an HttpOnly, SameSite cookie and the page that was asked for."""
    answer = stranger.post("/login?next=/local/demo", data={"key": f" {scene.key}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/local/demo")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert scene.key not in cookie
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("data", [{}, {"key": ""}, {"key": "x" * 40}, {"key": "x" * 100_000}, {"key": "é" * 50}])
def test_a_wrong_key_opens_nothing(stranger: httpx.Client, data: dict[str, str]) -> None:
    """Whatever else is sent as a key is refused in words, without a cookie."""
    answer = stranger.post("/login", data=data)
    assert answer.status_code == 401
    assert "does not know this key" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_ticket_signs_in_while_it_lasts(scene: Scene, stranger: httpx.Client) -> None:
    """A signed link signs its user in; an expired or forged one leads to the form with a word why."""
    late = stranger.get("/login", params={"ticket": scene.hub.auth.ticket_for("local", ttl_s=-1)})
    assert (late.status_code, "has expired" in late.text) == (401, True)
    assert stranger.get("/login", params={"ticket": "forged.word"}).status_code == 401
    assert stranger.get("/login", params={"ticket": scene.hub.auth.session_of("local", 600)}).status_code == 401
    answer = stranger.get("/login", params={"ticket": scene.hub.auth.ticket_for("local"), "next": "/local/demo"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/local/demo")
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("address", ["https://elsewhere", "//elsewhere", "/\\elsewhere", "javascript:1", "/a\nb", ""])
def test_signing_in_never_leads_elsewhere(address: str) -> None:
    """An address that is no path of this server is replaced by the front page."""
    assert local(address) == "/"


def test_signing_out_forgets_the_cookie(client: httpx.Client) -> None:
    """After signing out the browser has no cookie."""
    answer = client.post("/logout")
    assert answer.status_code == 303
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/login", "/local/demo/sweeps/nothing", "/data.json"])
def test_every_answer_lets_in_our_own_files_only(client: httpx.Client, path: str) -> None:
    """Pages and twins forbid inline scripts, foreign hosts, framing and sniffing, and are never stored."""
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/local/nothing", "/local/demo/sweeps/nothing", "/local/demo/runs/nothing"])
def test_what_is_not_there_is_said(client: httpx.Client, path: str) -> None:
    """An unknown project, sweep or run is a page with status 404 that says so; its twin too."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert "There is no" in answer.text
    assert client.get(f"{path}/data.json").json()["error"].startswith("There is no")


def test_a_hostile_address_is_escaped(client: httpx.Client) -> None:
    """What the address says is shown as text."""
    answer = client.get("/local/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in answer.text


def test_names_are_escaped_in_pages_and_in_twins(scene: Scene, client: httpx.Client) -> None:
    """A run's name reaches page and twin as text, wherever it stands."""
    sweep, agent = scene.demo(1)
    run = scene.trial(agent, 1, display_name="<script>alert(1)</script>")
    for path in (scene.address(sweep), f"/local/demo/runs/{run.name}"):
        assert "<script>alert" not in client.get(path).text
        parts = client.get(f"{path}/data.json").json()["fragments"]
        assert "&lt;script&gt;" in "".join(parts.values())
        assert "<script" not in "".join(parts.values())


def test_the_twin_is_silent_until_something_changes(scene: Scene, client: httpx.Client) -> None:
    """With the last token the twin gives a token alone; after a trial, or for an earlier life's token, everything."""
    sweep, agent = scene.demo(1)
    address = f"{scene.address(sweep)}/data.json"
    first = client.get(address).json()
    assert client.get(address, params={"since": first["token"]}).json() == {"token": first["token"]}
    scene.sweep()  # a commit that this page does not show
    second = client.get(address, params={"since": first["token"]}).json()
    assert list(second) == ["token"]
    scene.trial(agent, 1)
    third = client.get(address, params={"since": second["token"]}).json()
    assert len(third["charts"]["tradeoff"]["points"]) == 2
    assert "fragments" in client.get(address, params={"since": f"otherlife{first['token'][8:]}"}).json()


def test_the_answer_reaches_the_page(scene: Scene, client: httpx.Client) -> None:
    """When the controls of a sweep have run, its page sets the winner beside them, and the twin tells so."""
    sweep, agent = scene.demo(1)
    winner = scene.trial(agent, 4)
    known = client.get(f"{scene.address(sweep)}/data.json").json()["token"]
    assert "On test" not in client.get(scene.address(sweep)).text
    scene.answer(sweep, winner)
    twin = client.get(f"{scene.address(sweep)}/data.json", params={"since": known}).json()
    for text in (client.get(scene.address(sweep)).text, twin["fragments"]["answer"]):
        assert "On test, beside what it has to beat" in text
        assert f"/local/demo/runs/{sweep.name}-dense-default" in text


def test_what_the_search_says_stands_on_the_sweeps_page(scene: Scene, client: httpx.Client) -> None:
    """The run that it expects most of, with what it expects, and in a line what it lacks; the twin hears of it."""
    sweep, _ = scene.demo(3)
    known = client.get(f"{scene.address(sweep)}/data.json").json()["token"]
    run = scene.hub.listing.sweep_runs(sweep.id)[1]
    expected = {"drop": {"expected": 0.004, "lo": 0.001, "hi": 0.007}, "score": 0.5}
    scene.script.advised, scene.script.said = Advice(run.name, expected, "profile.version: got 99; make it anew"), 1
    try:
        twin = client.get(f"{scene.address(sweep)}/data.json", params={"since": known}).json()
        for text in (client.get(scene.address(sweep)).text, twin["fragments"]["head"]):
            assert f'The search expects most of <a href="/local/demo/runs/{run.name}">' in text
            assert "expected drop 0.40 pt (0.10 pt to 0.70 pt), score 0.5" in text
            assert "The search: profile.version: got 99; make it anew" in text
    finally:
        scene.script.advised = Advice()


def test_an_early_stop_is_told_with_its_reason(scene: Scene, client: httpx.Client) -> None:
    """A run that early termination asks to stop says so on its page, and the twin hears of it."""
    sweep = scene.sweep("""
method: random
metric: {name: loss, goal: minimize}
early_terminate: {type: hyperband, min_iter: 2}
parameters: {lr: {min: 0.0, max: 1.0}}
""")
    for loss in (0.1, 0.2, 0.3, 9.0):
        run = scene.start(scene.agent(sweep), {"lr": loss}, {"kind": "random"})
        scene.log(run, {"loss": loss}, ends=False, lines=[{"_step": step, "loss": loss} for step in range(3)])
    address = f"/local/demo/runs/{run.name}"
    assert "Asked to stop" not in client.get(address).text
    assert run.name in {stop.name for stop in scene.hub.early_stop.stop_early()}
    reason = scene.hub.records.run_by_id(run.id).stop_reason
    assert reason
    assert f"Asked to stop: {reason}" in html.unescape(client.get(address).text)


def test_files_and_artifacts_are_listed(scene: Scene, client: httpx.Client) -> None:
    """A run's page lists the files it saved and the artifacts it logged, with the line that fetches one."""
    _, agent = scene.demo(1)
    run = scene.trial(agent, 1)
    scene.save(run, "notes.txt", b"seven b")
    scene.publish(run, f"candidate-{run.name}")
    page = client.get(f"/local/demo/runs/{run.name}").text
    assert "notes.txt" in page
    assert f"wandb artifact get local/demo/candidate-{run.name}:v0" in page


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/local/demo/workspace", "/local/demo"),
        ("/local/demo/sweeps", "/local/demo"),
        ("/local/demo/runs/abc/overview", "/local/demo/runs/abc"),
        ("/authorize", "/login"),
    ],
)
def test_other_wandb_addresses_lead_to_the_nearest_page(client: httpx.Client, path: str, target: str) -> None:
    """Addresses that W&B's tools print and that have no page of their own are not dead ends."""
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (302, target)


def test_lists_show_projects_sweeps_and_loose_runs(scene: Scene, client: httpx.Client) -> None:
    """The front page and a project's page list what there is, with links."""
    sweep, _ = scene.demo(2)
    assert f'href="{scene.address(sweep)}"' in client.get("/").text
    listed = client.get("/local/demo").text
    assert f'href="{scene.address(sweep)}"' in listed
    assert "2 of 20" in listed


def test_a_devices_queue_has_pages(scene: Scene, client: httpx.Client) -> None:
    """A sweep of measurements has neither goal nor search space: it and its runs are shown all the same."""
    sweep = scene.sweep(yaml.safe_dump(queue("board")))
    request = MeasurementRequest("board")
    run = scene.hub.enqueue(sweep.id, {"request": {"value": request.to_json()}, "key": {"value": request.key}})
    for address in (scene.address(sweep), f"/local/demo/runs/{run.name}"):
        assert client.get(address).status_code == 200
        assert client.get(f"{address}/data.json", headers={"accept": "application/json"}).status_code == 200
    assert "device-board" in client.get(scene.address(sweep)).text


def test_vendored_files_are_what_they_say() -> None:
    """ECharts is the file its note names, with its licence beside it, and no template or style asks another host."""
    folder = Path(pages.__file__).parent
    vendored = folder / "static" / "vendor" / "echarts"
    found = hashlib.sha256((vendored / "echarts.min.js").read_bytes()).hexdigest()
    assert found in (vendored / "VERSION").read_text()
    assert "Apache License" in (vendored / "LICENSE").read_text()
    ours = [*folder.glob("templates/*.html"), *folder.glob("static/*.js"), *folder.glob("static/*.css")]
    assert [path.name for path in ours if "https://" in path.read_text()] == []


def _press(client: httpx.Client, address: str, action: str, target: str) -> httpx.Response:
    """A button of the agents' form, as a browser sends it."""
    own = {"origin": str(client.base_url).rstrip("/")}
    return client.post(f"{address}/agents", data={action: target}, headers=own)


def test_a_button_holds_an_agent_and_another_lets_it_go(scene: Scene, client: httpx.Client) -> None:
    """The form leads back to the page, which shows the state and what may be asked then; the twin hears of it."""
    sweep, agent = scene.demo(1)
    name, address = scene.hub.records.agent_by_id(agent).name, scene.address(sweep)
    token = client.get(f"{address}/data.json").json()["token"]
    answer = _press(client, address, "pause", name)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{address}#agents")
    shown = client.get(f"{address}/data.json", params={"since": token}).json()["fragments"]["agents"]
    assert ">paused</span>" in shown
    assert f'name="resume" value="{name}"' in shown and f'name="pause" value="{name}"' not in shown
    _press(client, address, "resume", name)
    assert ">idle</span>" in client.get(address).text


def test_a_held_host_is_told_with_its_button(scene: Scene, client: httpx.Client) -> None:
    """Who held a host sees that it is, also when no agent of it is left, and can let it go."""
    sweep, agent = scene.demo(1)
    address = scene.address(sweep)
    scene.hub.hold_agents(sweep.id, "drain", "workbench")
    scene.hub.heartbeat(agent, [])
    assert "workbench is held, with whatever joins from there" in client.get(address).text
    _press(client, address, "resume", "workbench")
    assert scene.hub.records.held_hosts(sweep.id) == []


def test_a_cookie_alone_asks_nothing_of_agents(scene: Scene, client: httpx.Client) -> None:
    """Another site's form is refused, and a stranger is led to the sign-in."""
    sweep, agent = scene.demo(1)
    name, address = scene.hub.records.agent_by_id(agent).name, scene.address(sweep)
    for headers in ({}, {"origin": "https://elsewhere"}, {"sec-fetch-site": "cross-site"}):
        answer = client.post(f"{address}/agents", data={"stop": name}, headers=headers)
        assert (answer.status_code, "page of this server" in answer.text) == (403, True)
    client.cookies.clear()
    assert _press(client, address, "stop", name).headers["location"].startswith("/login")
    assert not scene.hub.records.agent_by_id(agent).hold


def test_another_users_agents_are_not_there_to_be_asked(scene: Scene, client: httpx.Client) -> None:
    """A sweep of somebody else's is none; and what cannot be done is said on a page."""
    sweep, agent = scene.demo(1)
    name, address = scene.hub.records.agent_by_id(agent).name, scene.address(sweep)
    gone = _press(client, address, "stop", "nobody")
    assert (gone.status_code, f"there is {name} on workbench" in gone.text) == (404, True)
    scene.hub.auth.add_user("mallory")
    client.cookies.set(COOKIE, scene.hub.auth.session_of("mallory", 600))
    assert _press(client, address, "stop", name).status_code == 404
    assert not scene.hub.records.agent_by_id(agent).hold


def test_unlike_software_is_named_on_the_page(scene: Scene, client: httpx.Client) -> None:
    """Where hosts of a sweep run unlike versions one line says which; where they are alike there is none."""
    sweep, agent = scene.demo(0)
    for index, (host, version) in enumerate((("a", "1.0"), ("b", "1.1"), ("c", "1.1"))):
        run = scene.trial(agent, index)
        assert "unlike software" not in client.get(scene.address(sweep)).text or index == 2
        said = {**run.config, "versions": {"openvino": version, "torch": "2.0", "numpy": version}}
        scene.hub.revise_run(run.id, RunChange(host=host, config={k: {"value": v} for k, v in said.items()}))
    assert "measure: openvino 1.0 on a, 1.1 on b and c." in client.get(scene.address(sweep)).text
