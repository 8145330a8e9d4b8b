"""The pages in a real browser, over a real hub."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from prunefleet.infra.dashboard import pages

from support.dashboard_hub import KEPT, Scene, served

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visit:
    """A signed-in page with what it complained of and what it asked for."""

    page: Any
    base: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> Any:
        """Go there and wait until the page has shown its data."""
        self.page.goto(self.base + path)
        self.page.wait_for_selector("body[data-shown]", timeout=10_000)
        return self.page

    def points(self, chart: str) -> int:
        """How many points a chart says it has drawn."""
        return int(self.page.get_attribute(f"#chart-{chart}", "data-points"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "hub")
    yield made
    made.store.close()


@pytest.fixture(params=[1280])
def visit(
    browser: Any, scene: Scene, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Visit]:
    """A visit that must end without a complaint in the console and without a request to elsewhere."""
    monkeypatch.setattr(pages, "LIVE_MS", 200)
    with served(scene) as base:
        context = browser.new_context(viewport={"width": request.param, "height": 900})
        context.set_default_timeout(10_000)
        context.add_cookies(
            [{"name": "prunefleet_session", "value": scene.hub.auth.session_of("local", 600), "url": base}]
        )
        made = Visit(context.new_page(), base)
        made.page.on("console", lambda message: made.complaints.append(message.text) if message.type != "log" else None)
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("request", lambda asked: made.requests.append(asked.url))
        yield made
        context.close()
    assert made.complaints == []
    assert {urlsplit(url).hostname for url in made.requests} <= {"127.0.0.1"}


def test_a_sweep_shows_every_trial_and_its_points(scene: Scene, visit: Visit) -> None:
    """Each trial is a row and a point; the dense and uniform ones bear their names, the best is marked."""
    sweep, _ = scene.demo()
    page = visit.open(scene.address(sweep))
    assert page.locator("#trials-table tbody tr").count() == len(KEPT)
    assert visit.points("tradeoff") == len(KEPT)
    assert visit.points("best") == len(KEPT)
    kinds = page.locator("#trials-table .kind").all_inner_texts()
    assert kinds == ["explore", "exploit", "greedy", "uniform", "uniform", "dense"]
    assert page.locator("#trials-table tr.best .kind").inner_text() == "exploit"
    assert page.locator("canvas").count() == 2


def test_a_new_trial_appears_without_a_reload(scene: Scene, visit: Visit) -> None:
    """While the page is open a trial starts, ends and reaches table, charts and progress by itself."""
    sweep, agent = scene.demo(3)
    page = visit.open(scene.address(sweep))
    page.evaluate("() => { document.body.dataset.stayed = 'yes' }")
    ended = scene.trial(agent, 4)
    page.wait_for_selector(f"#trial-4 a[href$='/{ended.name}']")
    page.wait_for_selector("#chart-tradeoff[data-points='4']")
    assert page.locator(".tile .figure").first.inner_text().startswith("4 of 20")
    assert page.get_attribute("body", "data-stayed") == "yes"


def test_a_live_page_asks_little_while_nothing_changes(scene: Scene, visit: Visit) -> None:
    """A poll that finds nothing new answers in a few bytes."""
    sweep, _ = scene.demo(2)
    page = visit.open(scene.address(sweep))
    with page.expect_response(re.compile(r"data\.json\?since=\w+-")) as polled:
        pass
    assert len(polled.value.body()) < 100


@pytest.mark.parametrize("visit", [400], indirect=True)
def test_names_are_text_whatever_they_hold(scene: Scene, visit: Visit) -> None:
    """A run named as a script is shown, not run: in the table, in the title, in the log; also on a telephone."""
    sweep, agent = scene.demo(1)
    name = "<script>alert(1)</script>"
    run = scene.trial(agent, 1, display_name=name)
    visit.page.on("dialog", lambda dialog: visit.complaints.append(f"dialog {dialog.message}"))
    page = visit.open(scene.address(sweep))
    assert page.locator("#trial-2 th a").inner_text() == name
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400
    page.locator("#trial-2 th a").click()
    page.wait_for_selector("body[data-shown]")
    assert page.locator("h1").inner_text() == name
    assert "<b>loss</b>" in page.locator("#log").inner_text()
    assert page.url.endswith(f"/runs/{run.name}")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400


def test_a_run_shows_its_curves_groups_and_stages(scene: Scene, visit: Visit) -> None:
    """A run's page draws each metric it logged, its channels against the dense width, and its stages."""
    _, agent = scene.demo(1)
    run = scene.trial(agent, 4)
    page = visit.open(f"/local/demo/runs/{run.name}")
    assert page.locator("#curves figure").count() == 2
    assert page.locator("#curves .chart").first.get_attribute("data-points") == "4"
    # By name: stage1_conv, stage2_conv, stem.
    assert page.locator(".groupkept").nth(1).inner_text() == "48 of 128 · ratio 0.625"
    assert page.locator(".groupkept").nth(2).inner_text() == "16 of 32 · ratio 0.5"
    assert "train" in page.locator(".stages").inner_text()


@pytest.mark.parametrize("visit", [1280, 400], indirect=True)
def test_an_agent_is_paused_and_resumed_by_its_buttons(scene: Scene, visit: Visit) -> None:
    """A press leads back to the agents of the page, which say how it stands then; also on a telephone."""
    sweep, agent = scene.demo(1)
    scene.hub.hold_agents(sweep.id, "pause", "workbench")
    page = visit.open(scene.address(sweep))
    page.get_by_role("button", name="Resume workbench").click()
    page.wait_for_selector("#agents .badge-idle")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("#agents .badge-paused")
    assert scene.hub.records.agent_by_id(agent).hold == "pause"
    assert page.url.endswith("#agents")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_trials_can_be_sorted_and_stay_sorted(scene: Scene, visit: Visit) -> None:
    """A click on a column sorts it, says so to a screen reader, and a later trial finds its place in that order."""
    sweep, agent = scene.demo(3)
    page = visit.open(scene.address(sweep))
    column = page.locator("th[data-sort=ratio]")
    column.locator("button").click()
    column.locator("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    scene.trial(agent, 4)
    page.wait_for_selector("#trial-4 .badge-scored")
    shown = page.locator("#trials-table tbody td:first-child").all_inner_texts()
    assert shown == ["3", "4", "2", "1"]
    assert page.locator("th[data-sort=ratio]").get_attribute("aria-sort") == "ascending"


def test_a_sweep_without_pruning_has_a_sensible_page(scene: Scene, visit: Visit) -> None:
    """A foreign sweep shows its metric over trials and its parameters as columns."""
    sweep = scene.generic([0.9, 0.4, 0.6])
    page = visit.open(scene.address(sweep))
    assert "lr" in page.locator("#trials-table thead").inner_text()
    assert page.locator("#chart-tradeoff").count() == 0
    assert visit.points("best") == 3
    assert page.locator(".badge").first.inner_text() == "finished"


def test_empty_pages_say_what_to_do_next(scene: Scene, visit: Visit) -> None:
    """Without projects the front page says how to start; without agents a sweep gives the line that adds a machine."""
    assert "prunefleet up sweep.yaml" in visit.open("/").locator("main").inner_text()
    sweep = scene.sweep()
    text = visit.open(scene.address(sweep)).locator(".notice").inner_text()
    assert f"WANDB_BASE_URL={visit.base}" in text
    assert f"wandb agent --forward-signals local/demo/{sweep.name}" in text


def test_a_button_makes_the_line_for_another_host(scene: Scene, visit: Visit) -> None:
    """Pressed in the page it is taken for this server's own, and the line's token is one that the hub knows."""
    sweep = scene.sweep()
    page = visit.open(scene.address(sweep))
    page.get_by_role("button", name="Make the line for another host").first.click()
    line = page.locator("#line").inner_text()
    assert f"prunefleet[trial] @ {visit.base}/wheel/" in line and line.endswith(f"prunefleet join {visit.base}")
    assert "works on this machine alone" in page.locator("[role=alert]").inner_text()
    joined = scene.hub.host_keys.accept(line.split("PRUNEFLEET_JOIN_TOKEN=")[1].split()[0], "board1")
    assert joined.sweep == f"local/demo/{sweep.name}" and visit.complaints == []


def test_signing_in_with_a_key_leads_back(scene: Scene, visit: Visit) -> None:
    """A stranger is asked for a key; a wrong one is refused in words, the right one leads to the page they wanted."""
    sweep, _ = scene.demo(1)
    page = visit.page
    page.context.clear_cookies()
    page.goto(visit.base + scene.address(sweep))
    page.fill("#key", "x" * 40)
    page.click("button.primary")
    assert page.locator("#problem").inner_text() == "The server does not know this key."
    page.fill("#key", scene.key)
    page.click("button.primary")
    page.wait_for_selector("body[data-shown]")
    assert urlsplit(page.url).path == scene.address(sweep)
    visit.complaints[:] = [one for one in visit.complaints if "401" not in one and "Password forms" not in one]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scene: Scene, visit: Visit, scheme: str) -> None:
    """In light and in dark the text reaches the contrast that WCAG 2.2 AA asks for (4.5 to 1)."""
    sweep, _ = scene.demo(2)
    visit.page.emulate_media(color_scheme=scheme)
    page = visit.open(scene.address(sweep))
    assert page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest("svg")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${one.className}: ${one.textContent.trim().slice(0, 20)}`);
  }
  return poor;
}"""
