"""Searches judged on surrogates of a table: how models are fitted, what a pick is worth, that games can be repeated."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from studies.table import search, surrogate
from studies.table import search_report as report
from studies.table.passes import DEVICE, HEAD, LATENCY, PROFILE, TRIAL
from studies.table.players import BASE, OURS, PLAYERS, RANDOM, UNIFORM, Optuna
from studies.table.search import GOALS, Game, observed_best, optimum, play, worth
from studies.table.study import Table
from studies.table.surrogate import FAMILIES, RATIO, VALIDATION, Facts, accuracy_of, facts_of, folds, judged_on

SPACE = Space(tuple(GroupSpec(f"g{place}", width, 8) for place, width in enumerate((24, 48, 48, 96))))
LOSES, TAKES = np.array([0.02, 0.01, 0.03, 0.015]), np.array([0.1, 0.15, 0.2, 0.3])
SEED_SD, SITTING_SD, DENSE = 0.001, 0.005, 0.9
LENGTH = 12
"""Of a game: two more than other engines draw at random."""
NAMED = {"task": "t", "network_hash": "n", "baseline_hash": "b", "device": "cpu", "precision": "f32"}


def _true(kept: dict[str, int]) -> tuple[float, float]:
    """The drop and the latency ratio; groups share a little of both."""
    gone = np.array([1 - kept[spec.name] / spec.width for spec in SPACE.groups])
    return float(LOSES @ gone**2 + 0.01 * gone[0] * gone[2]), float(1 - TAKES @ gone + 0.1 * gone[1] * gone[3])


def _profile() -> Profile:
    curves = []
    for spec in SPACE.groups:
        kept = SPACE.levels(spec.name)
        alone = [_true(SPACE.widths | {spec.name: count}) for count in kept]
        metric, ratio = (
            tuple(each) for each in zip(*((DENSE - 3 * drop, ratio) for drop, ratio in alone), strict=True)
        )
        curves.append(Curve(spec.name, kept, metric, ratio))
    return Profile(**NAMED, groups=SPACE.groups, metric="top1", dense_metric=DENSE, curves=tuple(curves))


def _rows(candidates: int = 60, repeated: int = 10) -> list[dict[str, Any]]:
    """What a table holds, with known noise."""
    random = np.random.default_rng(5)
    drawn = {
        tuple(SPACE.kept({spec.name: float(random.uniform(0, 0.875)) for spec in SPACE.groups}).values())
        for _ in range(candidates)
    }
    drawn.add(tuple(SPACE.widths.values()))
    names, found = list(SPACE.widths), sorted(drawn)
    head: dict[str, Any] = {
        "row": HEAD,
        "groups": [{"name": spec.name, "width": spec.width, "step": spec.step} for spec in SPACE.groups],
        "dense": {"validation": DENSE, "holdout": DENSE},
        "candidates": [["random", list(kept)] for kept in found],
    }
    rows = [head, {"row": PROFILE, "profile": _profile().to_json()}, {"row": DEVICE, "id": "d", "device": {}}]
    for place, channels in enumerate(found):
        kept = dict(zip(names, channels, strict=True))
        drop, ratio = _true(kept)
        known = {"name": f"c{place:03d}", "kept": kept, "device": "d"}
        for seed in range(3 if place < repeated else 1):
            splits = {split: DENSE - drop + SEED_SD * random.normal() for split in ("validation", "holdout")}
            rows.append({"row": TRIAL, "origin": "random", "seed": seed, **known, **splits})
        timed = ratio * np.exp(SITTING_SD * random.normal(size=2))
        rows.append({"row": LATENCY, **known, "ratio": timed[0]} | ({"again": timed[1]} if place % 4 == 0 else {}))
    return rows


def _table(folder: Path, rows: list[dict[str, Any]]) -> Table:
    table = Table(folder / "table.jsonl")
    table.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Those of the synthetic table."""
    return facts_of(_table(tmp_path_factory.mktemp("table"), _rows()))


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Fewer folds; nothing that is fitted here is seen by other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate, "FOLDS", 4)
        patch.setattr(surrogate, "TREES", 60)
        patch.setattr(surrogate, "_FITTED", {})
        yield


def test_a_surrogate_knows_candidates_that_it_was_not_fitted_to(facts: Facts) -> None:
    """Smooth families come close to the noise on a smooth truth; all of them rank candidates well."""
    found = accuracy_of(facts)
    assert set(found) == set(FAMILIES)
    for family in ("quadratic ridge", "Gaussian process"):
        assert found[family][VALIDATION]["rmse"] < 1.5 * SEED_SD
        assert found[family][VALIDATION]["r2"] > 0.97
        assert found[family][RATIO]["rmse"] < 0.03
    assert all(each[target]["spearman"] > 0.8 for each in found.values() for target in each)
    assert set(judged_on(found)) == {"quadratic ridge", "Gaussian process"}


def test_the_best_two_families_are_of_different_kinds() -> None:
    """The second best is passed over where it is of the best one's kind."""
    r2 = {"extra trees": 0.9, "gradient boosting": 0.8, "quadratic ridge": 0.7, "Gaussian process": 0.6}
    assert judged_on({family: {key: {"r2": each} for key in (VALIDATION, RATIO)} for family, each in r2.items()}) == (
        "extra trees",
        "quadratic ridge",
    )


def test_noise_is_that_of_the_table(facts: Facts) -> None:
    """The seed noise is pooled over repeated candidates, that of latency is of one sitting rather than of two."""
    assert facts.noise[VALIDATION] == pytest.approx(SEED_SD, rel=0.4)
    assert facts.noise[RATIO] == pytest.approx(SITTING_SD, rel=0.5)
    assert facts.counts["trials"] == facts.counts["candidates"] + 2 * facts.counts["repeated"]


def test_folds_never_share_a_candidate(facts: Facts) -> None:
    """Seeds of one candidate are held out together, and each row is held out once."""
    for sample in facts.samples.values():
        held_out: list[int] = []
        for fit, held in folds(sample):
            assert not set(sample.candidates[fit]) & set(sample.candidates[held])
            held_out += held.tolist()
        assert sorted(held_out) == list(range(len(sample.values)))


@pytest.mark.parametrize(
    ("without", "message"), [(LATENCY, "`-k measured`"), (TRIAL, "`-k trained`"), (HEAD, "`-k trained`")]
)
def test_what_is_missing_is_told_in_one_line(without: str, message: str, tmp_path: Path) -> None:
    """Nothing stands for latencies or trials that are not there; it is said which pass makes them."""
    table = _table(tmp_path, [row for row in _rows() if row["row"] != without])
    with pytest.raises(BadInput, match=message) as raised:
        facts_of(table)
    assert "\n" not in str(raised.value)


def test_an_infeasible_pick_pays() -> None:
    """A tenth of a point beyond the limit is free, then each point costs 50; a latency beyond the limit costs 10."""
    fastest, accurate = Goal("fastest", max_drop=0.01), GOALS["most accurate"]
    assert worth(0.0, 0.4, fastest) == pytest.approx(-40)
    assert worth(0.0109, 0.4, fastest) == pytest.approx(-40)
    assert worth(0.012, 0.4, fastest) == pytest.approx(-40 - 50 * 0.2)
    assert worth(0.02, 0.504, accurate) == pytest.approx(-2)
    assert worth(0.02, 0.55, accurate) == pytest.approx(-2 - 10 - 50 * 0.1)


def test_a_user_keeps_the_best_as_measured() -> None:
    """Within the measured limit the best one, without tolerance; where none is, the one least beyond it."""
    seen = [(0.0101, 0.2), (0.009, 0.5), (0.002, 0.6)]
    assert observed_best(seen, GOALS["fastest"]) == 1
    assert observed_best([(0.03, 0.2), (0.02, 0.9)], GOALS["fastest"]) == 1
    assert observed_best([(0.0, 0.6), (0.01, 0.5), (0.02, 0.1)], GOALS["most accurate"]) == 1


# That our own search repeats itself `make test` has in tests/contract/test_controller.py.
@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.slow] * (each == OURS)) for each in PLAYERS])
def test_the_same_seed_gives_the_same_game(name: str, facts: Facts) -> None:
    """Every search plays the same game again, another one with another seed, and no better than the optimum."""
    game = Game("quadratic ridge", "fastest", name, 1, trials=LENGTH)
    first, again = ({k: v for k, v in play(facts, game).items() if k != "ask_s"} for _ in range(2))
    assert first == again
    assert (
        first["trials"]
        == len(first["observed"])
        == min(LENGTH, len(SPACE.uniform_ladder()) if name == UNIFORM else LENGTH)
    )
    assert ("recommended" in first["picks"]) == (name == OURS)
    other = play(facts, Game("quadratic ridge", "fastest", name, 2, trials=LENGTH))
    assert other["picks"] != first["picks"]
    assert first["picks"]["tried"]["worth"] <= optimum(facts, game.family, GOALS["fastest"])["worth"] + 1e-4


@pytest.mark.parametrize("which", ["optuna gp", "optuna tpe"])
def test_optuna_is_told_the_limit(which: str) -> None:
    """A trial beyond the limit is infeasible to it, however fast it is."""
    told = Optuna(which, SPACE, GOALS["fastest"], 0)
    for drop, ratio in ((0.02, 0.1), (0.005, 0.6)):
        asked = told.ask()
        assert asked is not None
        told.tell(asked[0], drop, ratio)
    assert told.study.best_trial.number == 1


def test_the_optimum_is_that_of_all_candidates(facts: Facts) -> None:
    """The local search finds what trying every candidate of a small space finds."""
    grid = np.meshgrid(*(SPACE.levels(spec.name) for spec in SPACE.groups))
    every = np.column_stack([axis.ravel() for axis in grid])
    for family, goal in (("quadratic ridge", "fastest"), ("gradient boosting", "most accurate")):
        best = search.worths(surrogate.fitted(facts, family)(every), GOALS[goal]).max()
        assert optimum(facts, family, GOALS[goal])["worth"] == pytest.approx(best, abs=1e-6)


class _Here(Executor):
    """Plays in this process, at once."""

    def submit(self, work: Any, /, *given: Any, **_: Any) -> "Future[Any]":
        """Done when it returns."""
        done: Future[Any] = Future()
        done.set_result(work(*given))
        PLAYED.append(given[1].key)
        return done


PLAYED: list[str] = []


def test_games_are_gone_on_with(facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is not played again, the page tells all of it, and other facts begin anew."""
    monkeypatch.setattr(search, "side_by_side", lambda _: nullcontext(_Here()))
    monkeypatch.setattr(search, "PLAYERS", (RANDOM, BASE))
    monkeypatch.setattr(search, "accuracy_of", lambda _: _accuracy())
    path = tmp_path / "table-search.json"
    known = search.load(path, facts)
    wanted = search.games(known["families"], 2, 5, ("fastest",))
    PLAYED.clear()
    for _ in search.missing(facts, wanted[:3], known):
        search.save(path, known)
    assert sorted(PLAYED) == sorted(game.key for game in wanted[:3])
    known = search.load(path, facts)
    assert report.unfinished(known, wanted) == [game.key for game in wanted[3:]]
    list(search.missing(facts, wanted, known))
    assert sorted(PLAYED) == sorted(game.key for game in wanted)
    assert len(known["optima"]) == 2
    report.keep(known, path)
    whole = path.with_suffix(".md").read_text()
    assert f"of {facts.counts['candidates']} of {facts.counts['of']} candidates" in whole
    assert whole.count("| random | 2 |") == 2
    found = report.verdict(known, known["families"][0], "fastest", BASE)
    assert (found["n"], found["wins"], found["ratio"]) == (2, 0, (1.0, 1.0, 1.0))
    other = Facts(**{**vars(facts), "digest": "another"})
    assert search.load(path, other)["games"] == {}


def _accuracy() -> surrogate.Accuracy:
    """As if the families that are quick to ask were the best ones."""
    targets = (*surrogate.TARGETS,)
    return {family: {target: {"r2": 0.5, "rmse": 0.01, "spearman": 0.5} for target in targets} for family in FAMILIES}


def test_only_a_large_part_of_the_real_table_is_kept(facts: Facts) -> None:
    """Results go beside the table when half of the candidates of the real network are in it, else into the cache."""
    half = Facts(**{**vars(facts), "counts": {**facts.counts, "candidates": 30, "of": 60}})
    less = Facts(**{**vars(facts), "counts": {**facts.counts, "candidates": 29, "of": 60}})
    assert report.path_of(half, "resnet20").parent.name == "results"
    assert report.path_of(less, "resnet20").parent.name == "bench-table"
    assert report.path_of(half, "tiny").parent.name == "bench-table"
