"""The live comparison of searches: whose turn it is, how it goes on after an end, what is reused, what it tells."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from prunefleet.agent.measure import lock
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from studies.live.report import (
    COLUMNS,
    NAMES,
    Pick,
    games,
    later,
    observed,
    page,
    picks_at,
    recommended,
    seeds_at,
    seeds_interval,
)
from studies.live.run import Comparison
from studies.live.study import HEAD, METHODS, OURS, PROFILE, TRIAL, UNIFORM, Row, Setting, search_of, turns
from support.profile import straight_profile

SPACE = Space(tuple(GroupSpec(f"g{place}", 32, 8) for place in range(4)))
HEADER: Row = {
    "row": HEAD,
    "network": "fake",
    "goal": Goal(max_drop=0.01).to_json(),
    "device": {"cpu": "abacus", "cores": 1},
    "dense": {"validation": 0.9, "holdout": 0.91},
    "examples": {"validation": 1000, "holdout": 1000},
    "macs": 1_000_000,
    "sitting_s": 1.0,
}


def _profile() -> Profile:
    return straight_profile(SPACE, dense=0.95, lost=0.2, saved=0.2)


class Fake:
    """A trial whose figures follow from its channels and seed; counts how often each was made, and who was at it."""

    def __init__(self) -> None:
        self.made: Counter[tuple[object, ...]] = Counter()

    def __call__(self, network: str, kept: Mapping[str, int], seed: int, sitting_s: float) -> Row:
        self.made[(*kept.items(), seed)] += 1
        gone = sum(1 - count / 32 for count in kept.values()) / len(kept)
        luck = (sum(kept.values()) * 7 + seed * 13) % 11 / 2000
        drop = 0.03 * gone**2 + luck - 0.002
        ratio = 1 - 0.7 * gone
        figures = {"ratio": ratio, "ratio_lo": ratio - 0.01, "ratio_hi": ratio + 0.01, "baseline_p50_ms": 1.0}
        judged = {"validation": 0.9 - drop, "holdout": 0.91 - drop}
        return {**figures, **judged, "noisy": False, "seconds": {"train": 1.0}, "processor_seconds": 1.0}


class AtOnce(Executor):
    """Does what is submitted at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Held(Executor):
    """Does what is submitted when the one after next is: two run, and the second one ends first."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._before: threading.Event | None = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        before, self._before = self._before, threading.Event()
        own = self._before

        def run() -> Any:
            if before:
                before.set()  # the one before may end now that this one has begun
            own.wait(0.05)
            return fn(*args, **kwargs)

        return self._pool.submit(run)


def _setting(folder: Path, seeds: tuple[int, ...] = (0, 1), trials: int = 10) -> Setting:
    setting = Setting("fake", lambda: folder, seeds, trials)
    folder.mkdir(exist_ok=True)
    if not setting.table.rows():
        setting.table.append({"row": PROFILE, "profile": _profile().to_json()})
        setting.table.append(HEADER)
    return setting


def _rows(setting: Setting, fake: Fake, pool: Executor | None = None, processes: int = 1) -> Iterator[Row]:
    return Comparison(setting, fake, pool or AtOnce(), processes).rows()


def _told(rows: list[Row]) -> list[Row]:
    """Rows in the order of their turns, without how long a suggestion took."""
    ranked = sorted(rows, key=lambda row: (row["seed"], row["place"], METHODS.index(row["method"])))
    return [{name: each for name, each in row.items() if name != "asked_s"} for row in ranked]


@pytest.fixture(scope="module", autouse=True)
def _own_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is measured here, so nobody's measurement needs to be waited for."""
    folder = tmp_path_factory.mktemp("lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Setting, Fake]]:
    """A comparison that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEFLEET_CACHE", str(tmp_path_factory.mktemp("cache")))
        setting, fake = _setting(tmp_path_factory.mktemp("whole")), Fake()
        assert len(list(_rows(setting, fake))) == len(turns(setting))
        yield setting, fake


def test_methods_take_turns(whole: tuple[Setting, Fake]) -> None:
    """At any moment every method of a seed has as many trials as the others, or one more; seeds come one by one."""
    rows = whole[0].table.rows(TRIAL)
    assert [(row["seed"], row["place"], row["method"]) for row in rows] == [
        (turn.seed, turn.place, turn.method) for turn in turns(whole[0])
    ]
    for end in range(1, len(rows) + 1):
        count = Counter(row["method"] for row in rows[:end])
        assert max(count.values()) - min(count[method] for method in METHODS) <= 1


def test_an_end_changes_nothing(whole: tuple[Setting, Fake], tmp_path: Path) -> None:
    """Ended anywhere, within a line too, the next run makes what is missing: the same trials as without an end."""
    setting, fake = _setting(tmp_path), Fake()
    for end in (1, 5, 31):
        list(islice(_rows(setting, fake), end))
        with setting.table.path.open("a") as file:
            file.write('{"row": "trial", "meth')
    list(_rows(setting, fake))
    assert _told(setting.table.rows(TRIAL)) == _told(whole[0].table.rows(TRIAL))
    assert max(fake.made.values()) == 1


def test_who_is_quicker_changes_nothing(whole: tuple[Setting, Fake], tmp_path: Path) -> None:
    """With several processes and trials that end in another order the searches ask for the same."""
    setting = _setting(tmp_path)
    list(islice(_rows(setting, Fake(), Held(), 2), 9))
    fake = Fake()
    list(_rows(setting, fake, Held(), 3))
    assert _told(setting.table.rows(TRIAL)) == _told(whole[0].table.rows(TRIAL))
    assert max(fake.made.values()) == 1


def test_the_same_trial_is_made_once(whole: tuple[Setting, Fake]) -> None:
    """Whoever asks for channels and a seed that were tried gets their figures, and a row that says so."""
    setting, fake = whole
    rows = setting.table.rows(TRIAL)
    assert max(fake.made.values()) == 1
    assert sum(not row["reused"] for row in rows) == len(fake.made) < len(rows)
    keys = [(*row["kept"].items(), row["tuning_seed"]) for row in rows]
    assert [row["reused"] for row in rows] == [key in keys[:place] for place, key in enumerate(keys)]
    first = {key: row["validation"] for key, row in zip(reversed(keys), reversed(rows), strict=True)}
    assert all(row["validation"] == first[key] for key, row in zip(keys, rows, strict=True))


def test_searches_with_other_seeds_have_nothing_in_common(whole: tuple[Setting, Fake]) -> None:
    """No trial of one is reused in the other: seeds of fine-tuning are a search's own."""
    rows = whole[0].table.rows(TRIAL)
    seeds = [{row["tuning_seed"] for row in rows if row["seed"] == seed} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]


def test_uniform_networks_come_again_with_another_seed() -> None:
    """The ladder is walked from the dense network to the narrowest, then again."""
    search, ladder = search_of(UNIFORM, 2, HEADER, _profile()), SPACE.uniform_ladder()
    asked = [search.ask() for _ in range(2 * len(ladder))]
    assert [each.kept for each in asked] == [*ladder, *ladder]
    assert [each.tuning_seed for each in asked] == [200] * len(ladder) + [201] * len(ladder)


def test_ours_is_told_the_drop_of_the_trial() -> None:
    """The profile's dense metric is of other images: the drop is told, not the metric."""
    search: Any = search_of(OURS, 0, HEADER, _profile())
    search.ask()
    search.tell({"ratio": 0.5, "validation": 0.88})
    assert search._search.trials[0].drop == pytest.approx(0.02)
    search.ask()
    search.tell({"ratio": 0.4, "failed": "loss is nan"})
    assert search._search.trials[1].impossible
    assert search.recommended() == 0


def test_rows_of_another_search_are_refused(whole: tuple[Setting, Fake], tmp_path: Path) -> None:
    """A table in which a search did what it would not do today is not gone on with."""
    setting = _setting(tmp_path)
    row = whole[0].table.rows(TRIAL)[0]
    setting.table.append(row | {"kept": dict.fromkeys(row["kept"], 8)})
    with pytest.raises(BadInput, match=r"remove live\.jsonl"):
        list(_rows(setting, Fake()))


def _row(place: int, ratio: float, drop: float, holdout: float = 0.0, **more: object) -> Row:
    judged = {"validation": 0.9 - drop, "holdout": 0.91 - holdout}
    return {"place": place, "ratio": ratio, "recommended": None, **judged, **more}


def test_the_dense_network_counts_while_nothing_meets_the_limit() -> None:
    """A pick is the fastest within the limit on validation, whatever holdout says; one that diverged is none."""
    rows = [_row(0, 0.5, 0.02), _row(1, 0.6, 0.01, 0.03), _row(2, 0.55, 0.011), _row(3, 0.9, 0.0)]
    rows.append({"place": 4, "ratio": 0.1, "failed": "loss is nan", "recommended": 1})
    assert observed([], HEADER) == observed(rows[:1], HEADER) == Pick()
    assert (Pick().ratio, Pick().holdout_drop) == (1.0, 0.0)
    found = observed(rows, HEADER)
    assert (found.row, found.ratio, round(found.holdout_drop, 6)) == (rows[1], 0.6, 0.03)
    assert recommended(rows[:4], HEADER) == Pick()
    assert recommended(rows, HEADER).row == rows[1]
    assert observed([_row(0, 1.02, 0.0)], HEADER) == Pick()


def test_methods_are_compared_on_the_same_seeds(whole: tuple[Setting, Fake]) -> None:
    """A seed counts after so many trials where every method has them."""
    rows = whole[0].table.rows(TRIAL)[:-2]
    found, last = games(rows), whole[0].trials
    assert (seeds_at(found, last - 1), seeds_at(found, last), seeds_at(found, last + 1)) == ([0, 1], [0], [])
    assert [len(picks_at(found, HEADER, name, last)) for name in COLUMNS] == [1] * len(COLUMNS)
    ratios = [picks_at(found, HEADER, NAMES[OURS], count)[0].ratio for count in range(1, last + 1)]
    assert ratios == sorted(ratios, reverse=True)


def test_the_interval_of_three_seeds_is_nearly_their_range() -> None:
    """Of all 27 resamples; of one seed there is none."""
    low, high = seeds_interval([1.0, 2.0, 3.0])
    assert 1 <= low < 1.4 and 2.6 < high <= 3
    assert seeds_interval([2.0]) == (2.0, 2.0)


def test_the_page_tells_what_was_played_again_later(whole: tuple[Setting, Fake], tmp_path: Path) -> None:
    """Trials of a method that were made when all others had theirs are said to be; in turn, none are."""
    setting, _ = whole
    assert not later(setting.table.rows(TRIAL)) and "came later" not in page(setting)
    again = replace(setting, folder=lambda: tmp_path)
    rows = sorted(setting.table.rows(), key=lambda row: row.get("method") == OURS)
    again.table.replace(TRIAL, rows)
    count = len(setting.seeds) * setting.trials
    assert later(again.table.rows(TRIAL)) == {OURS: count}
    assert f"But {count} trials of prunefleet came later" in page(again)


def test_the_page_tells_how_far_it_is(whole: tuple[Setting, Fake], tmp_path: Path) -> None:
    """From the first moment on; with trials it has a line for each number of them, and how often one was reused."""
    setting = _setting(tmp_path)
    assert "**0 of 80 trials** are done: `make bench-live` goes on" in page(setting)
    rows = whole[0].table.rows(TRIAL)
    for row in rows[:5]:
        setting.table.append(row)
    assert "**5 of 80 trials**" in page(setting)
    text = page(whole[0])
    assert "**80 of 80 trials** are done.\n" in text
    assert f"{sum(row['reused'] for row in rows)} trials were the same" in text
    assert text.count("\n| 10 | 2 |") == 2
    assert max(map(len, json.dumps(rows[0]).splitlines())) < 1000
