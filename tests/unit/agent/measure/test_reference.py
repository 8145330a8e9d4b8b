"""The reference network: the same everywhere, timed once a day, told by runs, by the doctor and on the page."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prunefleet.agent.commands.trial import own_speed
from prunefleet.agent.health import reference_network as health
from prunefleet.agent.measure import reference
from prunefleet.agent.measure.runners.base import OpenVINORunner
from prunefleet.agent.measure.runners.command import CommandRunner
from prunefleet.infra.dashboard.render import fragment
from prunefleet.infra.dashboard.views import sweep_view
from prunefleet.infra.dashboard.views_hosts import host_speeds
from prunefleet.objective.devices import DRIFTED

from support.dashboard import agent_row, run_row, sweep_row

NOW = 1.8e9


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[float]]:
    """What measurement sessions find one after the other, in an empty cache, on a host whose clock stands."""
    found: list[float] = []
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    monkeypatch.setattr(reference, "_measured", lambda loads: found.pop(0))
    clock(monkeypatch, NOW)
    yield found


def clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    for module in (reference, health):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))


def test_the_network_is_the_same_everywhere(tmp_path: Path) -> None:
    """Its weights come from a formula, so its fingerprint is a constant; it runs, and takes some time."""
    assert reference.fingerprint() == "6964c6221ab4"
    (tmp_path / "again").mkdir()
    first, again = (reference.written(folder) for folder in (tmp_path, tmp_path / "again"))
    weights = [model.xml.with_suffix(".bin").read_bytes() for model in (first, again)]  # OpenVINO makes up names
    assert weights[0] == weights[1] and first.size_bytes > 200_000
    assert OpenVINORunner().load(first).infer(np.ones(reference.SHAPE, np.float32))[0].shape == (1, 10)


def test_a_host_times_it_once_a_day(figures: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first figure stays, the latest follows; a clock that was set back, or a damaged file, does not end it."""
    figures += [1.0, 1.05, 1.02]
    assert reference.today().words() == {"ms": 1.0, "first_ms": 1.0, "device": "cpu", "network": "6964c6221ab4"}
    clock(monkeypatch, NOW + reference.DAY_S - 1)
    assert reference.today().ms == 1.0
    clock(monkeypatch, NOW + reference.DAY_S)
    assert (reference.today().ms, reference.today().first_ms) == (1.05, 1.0)
    clock(monkeypatch, NOW - 9 * reference.DAY_S)
    assert reference.today().ms == 1.02 and not figures
    (tmp_path / "reference" / "cpu.json").write_text("{}")
    figures += [0.9]
    assert (reference.today().ms, reference.today().first_ms) == (0.9, 0.9)


def test_what_looks_like_drift_is_looked_at_twice(figures: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's disturbance is not a host that became slower: the faster of two measurement sessions counts."""
    figures += [1.0, 1.5, 1.01, 1.4, 1.3]
    for day, ms in enumerate((1.0, 1.01, 1.3)):
        clock(monkeypatch, NOW + day * reference.DAY_S)
        assert reference.today().ms == ms
    assert not figures and reference.kept() is not None


def test_a_run_tells_its_hosts_speed(figures: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what OpenVINO reaches; not for a program of the user's, and not where the host cannot tell."""
    figures += [1.0]
    assert reference.told(OpenVINORunner())["reference"]["ms"] == 1.0
    assert reference.told(CommandRunner("time-it {ir}")) == {}
    here, there = SimpleNamespace(elsewhere=None, runner=OpenVINORunner()), SimpleNamespace(elsewhere=1)
    assert own_speed(SimpleNamespace(places=(here, there)))["reference"]["ms"] == 1.0  # type: ignore[arg-type, index]
    assert own_speed(SimpleNamespace(places=(there,))) == {}  # type: ignore[arg-type]
    monkeypatch.setattr(reference, "today", lambda device: (_ for _ in ()).throw(OSError("disk full")))
    assert reference.told(OpenVINORunner()) == {}


def test_it_is_timed_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two measurement sessions in a row agree within what counts as drift, unless the machine is disturbed in both."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    first = reference.today()
    assert 0.01 < first.ms < 100 and (tmp_path / "reference" / "cpu.json").exists()
    assert reference.today() == first


def test_the_doctor_shows_what_is_kept(figures: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed; a host that drifted is a warning with what to look for."""
    assert "not timed yet" in next(health.reference()).found
    figures += [1.0, 1.2, 1.2]
    reference.today()
    clock(monkeypatch, NOW + 3 * reference.DAY_S)
    (well,) = health.reference()
    assert (well.level, well.found) == ("ok", "1.000 ms at first, 1.000 ms 3.0 days ago, +0.0%")
    reference.today()
    (drifted,) = health.reference()
    assert drifted.level == "warning" and "+20.0%" in drifted.found and "look for heat" in drifted.remedy


def test_the_page_shows_each_host(figures: list[float]) -> None:
    """The latest word of each host and device, flagged from a tenth on; what is no figure is left out."""
    said = [(1.0, 1.0, "a"), (1.0, 1.09, "b"), (1.0, 1.12, "a"), (1.0, 0.85, "c"), (0.0, 1.0, "d"), ("x", None, "e")]
    runs = [
        run_row(number, host=host, summary={"reference": {"first_ms": first, "ms": ms, "device": "cpu"}})
        for number, (first, ms, host) in enumerate(said, start=1)
    ]
    found = host_speeds([*runs, run_row(9, summary={"reference": "fast"}), run_row(10)])
    assert [(one.host, one.ms, one.drifted) for one in found] == [
        ("a", 1.12, True),
        ("b", 1.09, False),
        ("c", 0.85, True),
    ]
    assert DRIFTED == 0.10
    view = sweep_view(sweep_row(), runs, [agent_row("agent-a")])
    shown = fragment("_agents.html", view=view, root="", base_url="http://x", on_loopback=False)
    assert "+12.0 %" in shown and "-15.0 %" in shown and shown.count("drifted") == 2 and "open" in shown
