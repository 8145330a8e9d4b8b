"""The bench of a table: which candidates it draws, that its file stays whole, how it goes on, and what it tells."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunefleet.agent.compress.groups import find_groups
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from studies.table import latency as support_table_latency
from studies.table import passes
from studies.table import study as support_table
from studies.table.latency import foretold, repeatability, told_of
from studies.table.report import page, seed_sd
from studies.table.study import ORIGINS, SETTINGS, Setting, Table, bench_of, draw, jobs, prepared, table_of
from studies.table.task import TableTask
from support.profile import straight_profile
from support.trial_context import quickly

SPACE = Space(tuple(GroupSpec(f"g{place}", width, 8) for place, width in enumerate((24, 24, 48, 48, 96, 96))))


def _profile() -> Profile:
    return straight_profile(SPACE, dense=0.9, lost=0.3, saved=0.15)


def test_candidates_are_a_mixture_on_the_grid() -> None:
    """They are distinct, on the grid, the same for one seed, the dense one among them, a third of each other origin."""
    drawn = draw(_profile(), SPACE, 150, 1)
    assert len({tuple(kept.values()) for _, kept in drawn}) == len(drawn) == 150
    assert all(kept == SPACE.kept(SPACE.ratios(kept)) for _, kept in drawn)
    assert drawn == draw(_profile(), SPACE, 150, 1) != draw(_profile(), SPACE, 150, 2)
    count = Counter(origin for origin, _ in drawn)
    assert set(count) == set(ORIGINS)
    assert count["dense"] == 1
    assert all(35 <= count[origin] <= 50 for origin in ("random", "curves", "neighbour"))
    halves = [Counter(origin for origin, _ in part)["random"] for part in (drawn[:75], drawn[75:])]
    assert min(halves) > 14


def test_the_latency_model_is_held_against_the_repeatability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks timed twice tell the noise; what the model foretells errs by little more, less the more it is told."""
    random, profile = np.random.default_rng(0), _profile()

    def timed(name: str, kept: Mapping[str, int]) -> dict[str, Any]:
        shares = [kept[spec.name] / spec.width for spec in SPACE.groups]
        true = 0.1 + 0.9 * float(np.mean(np.multiply(shares, [1.0, *shares[:-1]])))
        ratio, again = true * np.exp(random.normal(0, 0.01, 2))
        return {"name": name, "kept": kept, "ratio": float(ratio), "again": float(again)}

    rows = [timed(f"c{place:03d}", kept) for place, (_, kept) in enumerate(draw(profile, SPACE, 400, 1))]
    alone = {f"{each.group}={count}": {each.group: count} for each in profile.curves for count in each.kept}
    rows += [timed(name, SPACE.widths | kept) for name, kept in alone.items()]
    assert repeatability(rows) == pytest.approx(0.01, rel=0.2)
    errors = [foretold(profile, rows, told, seed=0)[0] for told in (0, 80)]
    assert errors[1] < 0.015 and errors[1] < errors[0]
    monkeypatch.setattr(support_table_latency, "DRAWS", 2)
    page_part = told_of(profile, rows, "a grid")
    assert (
        "| 80 | 1." in page_part and "model** on a grid," in page_part and told_of(profile, rows[:100], "a grid") == ""
    )


def test_repeated_candidates_are_spread_over_the_order() -> None:
    """Each candidate is trained once, the repeated ones with all seeds, and any beginning has its share of them."""
    setting = Setting(SETTINGS["tiny"].request, Path, candidates=60, repeated=10)
    found = jobs(draw(_profile(), SPACE, 60, 1), setting)
    assert len(found) == len({job.key for job in found}) == 60 + 10 * 2
    assert sum(job.seed > 0 for job in found[:40]) == 10
    assert [job.seed for job in found[:4]] == [0, 1, 2, 0]


def test_the_network_has_twelve_groups_that_do_not_depend_on_the_machine() -> None:
    """ResNet-20 has a group for each stage and each inner convolution; most have four levels or more."""
    network = TableTask(limit=4).network()
    groups = find_groups(network, torch.zeros(1, 1, 28, 28))
    assert [group.width for group in groups] == [24] * 4 + [48] * 4 + [96] * 4
    step = SETTINGS["resnet20"].step
    assert sum(group.width // step >= 4 for group in groups) == 8


def test_a_table_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read back by kind and replaced by kind; a line that was cut off is not read, and gone with the next."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    table = Table(tmp_path / "t.jsonl")
    for row in ({"row": "a", "n": 1}, {"row": "b", "n": 2}):
        table.append(row)
    with table.path.open("a") as file:
        file.write('{"row": "a", "n')
    assert [row["n"] for row in table.rows()] == [1, 2]
    table.append({"row": "a", "n": 3})
    assert [row["n"] for row in table.rows("a")] == [1, 3]
    table.replace("a", [{"row": "a", "n": 4}])
    assert [row["n"] for row in table.rows()] == [2, 4]


def _forget() -> None:
    """The next that asks prepares the bench anew."""
    bench_of.cache_clear()
    prepared.cache_clear()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """The tiny network's table after its first three trials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TRIALS_BENCH_PROCESSES", "1")
        quickly(patch, tmp_path_factory.mktemp("host") / "locks")
        patch.setitem(SETTINGS, "tiny", replace(SETTINGS["tiny"], candidates=6, repeated=1))
        _forget()
        passes.train("tiny", most=3)
        yield table_of("tiny")
        _forget()


def test_a_table_is_gone_on_with(tiny: Table) -> None:
    """Trials that are in the file are not done again, on another machine with the dense network of the file."""
    before = tiny.rows()
    assert [(row["name"], row["seed"]) for row in tiny.rows(passes.TRIAL)] == [("c000", 0), ("c000", 1), ("c001", 0)]
    sha256 = bench_of("tiny").baseline.sha256
    _forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(tiny.path.parent.parent / "elsewhere"))
        patch.setattr(support_table, "cache_folder", lambda: tiny.path.parent.parent)
        passes.train("tiny", most=1)
        assert bench_of("tiny").baseline.sha256 == sha256
    assert tiny.rows()[: len(before)] == before
    assert [row["name"] for row in tiny.rows(passes.TRIAL)[3:]] == ["c002"]
    row = tiny.rows(passes.TRIAL)[-1]
    assert {"validation", "holdout", "recalibrated", "kept", "origin", "macs", "seconds", "device"} <= set(row)


def test_latencies_are_all_of_one_machine(tiny: Table) -> None:
    """Every candidate and each group alone is timed, once; what was timed elsewhere before is gone."""
    tiny.append({"row": passes.LATENCY, "name": "c000", "kept": {}, "ratio": 0.1, "device": "elsewhere"})
    passes.measure("tiny")
    found = tiny.rows(passes.LATENCY)
    assert len(found) == len({row["name"] for row in found}) == 6 + 3 * 2
    assert len({row["device"] for row in found}) == 1
    assert sum(passes.AGAIN in row for row in found) == 1
    passes.measure("tiny")
    assert tiny.rows(passes.LATENCY) == found
    whole = page("tiny")
    assert "of 7 trials" in whole
    assert "Latencies** of 12 networks" in whole
    assert all(row[passes.LATENCY]["ratio"] > 0 for row in passes.joined(tiny))


# `make test` has the same pass on the table's own grid, above.
@pytest.mark.slow
def test_the_devices_own_grid_is_timed_beside_the_tables(tiny: Table) -> None:
    """As many candidates as the setting says, on the grid that a sweep has here; the table's own latencies stay."""
    before = tiny.rows(passes.LATENCY)
    passes.measure("tiny", passes.GRID)
    found = tiny.rows(passes.GRID)
    space = prepared("tiny").space
    assert sum("=" not in row["name"] for row in found) == SETTINGS["tiny"].on_grid
    assert all(row["kept"] == space.kept(space.ratios(row["kept"])) for row in found)
    assert all(passes.AGAIN in row for row in found)
    assert tiny.rows(passes.LATENCY) == before


def test_another_dense_network_is_refused(tiny: Table) -> None:
    """A table of another dense network is not gone on with, in one line that says what to do."""
    head = tiny.rows(passes.HEAD)[0]
    tiny.replace(passes.HEAD, [head | {"baseline": "c" * 64}])
    with pytest.raises(BadInput, match=r"remove table-tiny\.jsonl"):
        passes.train("tiny")
    tiny.replace(passes.HEAD, [head])


def test_noise_is_pooled_over_repeated_candidates() -> None:
    """Candidates with one seed say nothing of it; the others count by their degrees of freedom."""
    rows = [{"name": name, "validation": value} for name, value in zip("aabbbc", (0, 2, 1, 2, 3, 9), strict=True)]
    sd, count = seed_sd(rows, "validation")
    assert (sd**2, count) == (pytest.approx(4 / 3), 2)
