"""The bench of trials: which candidates it chooses, how it goes on after an interruption, and what it tells."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Curve, Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from studies.trials import lines as trials_lines
from studies.trials import passes
from studies.trials.lines import grouped, lines, lost, noise, rank_interval, ranks, swapped
from studies.trials.report import section
from studies.trials.study import UNIFORM, Job, Once, packed, pool, spread, uniform_candidates, unpacked

SPACE = Space((GroupSpec("a", 64, 8), GroupSpec("b", 128, 8)))


def _profile() -> Profile:
    """Group a is dear to prune, group b is cheap."""
    curves = []
    for spec, cost in zip(SPACE.groups, (0.5, 0.1), strict=True):
        kept = tuple(range(8, spec.width + 1, 8))
        gone = [1 - count / spec.width for count in kept]
        metric = tuple(0.9 - cost * share for share in gone)
        curves.append(Curve(spec.name, kept, metric, tuple(1 - 0.5 * share for share in gone)))
    named = {"task": "t", "network_hash": "n", "baseline_hash": "b", "device": "cpu", "precision": "f32"}
    return Profile(**named, groups=SPACE.groups, metric="top1", dense_metric=0.9, curves=tuple(curves))


def test_suggestions_are_new_and_follow_the_curves() -> None:
    """The pool holds distinct candidates, none of them uniform or dense, that prune the cheap group more."""
    found = [tuple(kept.items()) for kept in pool(_profile(), SPACE)]
    assert len(found) == len(set(found)) >= 4
    known = [tuple(rung.items()) for rung in SPACE.uniform_ladder()]
    assert not set(found) & {*known, tuple(SPACE.widths.items())}
    shares = [dict(kept)["a"] / 64 - dict(kept)["b"] / 128 for kept in found]
    assert np.mean(shares) > 0


def test_uniform_candidates_lie_on_the_grid() -> None:
    """There is a distinct aligned candidate for each of the four ratios."""
    found = uniform_candidates(SPACE)
    assert len({tuple(kept.items()) for kept in found.values()}) == len(UNIFORM) == 4
    assert all(count % 8 == 0 for kept in found.values() for count in kept.values())


@pytest.mark.parametrize("count", [3, 8, 20])
def test_those_chosen_are_spread_over_the_latencies(count: int) -> None:
    """The ends are among them, each is taken once, slowest first; of too few all are."""
    ratios = [0.2, 0.21, 0.8, 0.5, 0.4, 0.22, 0.9, 0.3, 0.31, 0.6]
    found = [ratios[place] for place in spread(ratios, count)]
    assert len(set(found)) == min(count, len(ratios))
    assert (found[0], found[-1]) == (0.9, 0.2)
    assert found == sorted(found, reverse=True)


def test_examples_survive_the_journal() -> None:
    """Figures of examples come back from JSON as they were; others than 0 and 1 are refused."""
    figures = torch.rand(13, 3) > 0.5
    assert np.array_equal(unpacked(json.loads(json.dumps(packed(figures)))), figures.numpy())
    with pytest.raises(ValueError, match="0 and 1"):
        packed(torch.tensor([[0.5]]))


def test_a_batch_is_answered_once() -> None:
    """Judging by several metrics runs the network once for each batch, and changes no answer."""
    asked: list[int] = []
    counting = torch.nn.Linear(3, 2)
    counting.register_forward_hook(lambda *_: asked.append(1))
    batches = torch.rand(2, 4, 3)
    network = Once(counting)
    for batch in (*batches, *batches):
        assert torch.equal(network(batch.clone()), torch.nn.functional.linear(batch, counting.weight, counting.bias))
    assert len(asked) == 2


KEPT = {"uniform 0.5": {"a": 32, "b": 64}, "chosen 1": {"a": 64, "b": 32}, "chosen 2": {"a": 48, "b": 16}}
CHOICE: dict[str, Any] = {
    "kept": KEPT,
    "latency": {name: {} for name in KEPT},
    "profile": {"suggested": 5, "curves": [], "baseline_hash": "b" * 64, "effort": {"levels": 4, "examples": 100}},
}
GOODS = {"dense": 0.9, "uniform 0.5": 0.7, "chosen 1": 0.8, "chosen 2": 0.6}


def _judged(name: str, seed: int, worse: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    figures = torch.from_numpy(random.uniform(size=(400, 1)) < GOODS[name] - worse)
    share = float(figures.double().mean())
    quality = {split: {"top1": share} for split in ("validation", "holdout", "test")}
    return {"quality": quality, "examples": {"test": packed(figures), "holdout": packed(figures)}, "size_bytes": 1}


def _worked(name: str, seed: int, precisions: tuple[str, ...]) -> dict[str, Any]:
    judged = {each: _judged(name, seed, 0.05 * (each == "int8")) for each in precisions}
    return {"macs": 10**6, "params": 1, "seconds": {"train": 1.0}, "precisions": judged}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a bench's: enough to tell what is so from what is not."""
    monkeypatch.setattr(trials_lines, "RESAMPLES", 200)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Passes that train and measure nothing; returns the keys of the jobs that were worked on."""
    worked: list[str] = []

    def work(todo: list[Job], latency: object) -> Any:
        for job in todo:
            worked.append(job.key)
            yield job, _worked(job.name, job.seed, job.precisions)

    def sitting(bench: object, own: list[Job], precision: str, seconds: float) -> dict[str, Any]:
        names = {"dense": 1.0, **{job.name: 0.3 + 0.1 * place for place, job in enumerate(own)}}
        names |= {"dense_f32": 2.0} if precision == "int8" else {}
        latencies = {
            name: {"ratio": ratio, "ratio_lo": ratio - 0.01, "ratio_hi": ratio + 0.01, "p50_ms": ratio, "noisy": False}
            for name, ratio in names.items()
        }
        slots = {name: [ratio + 0.001 * place for place in range(40)] for name, ratio in names.items()}
        return {"rounds": 40, "loads": 1, "device": {}, "latencies": latencies, "slots_ms": slots}

    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path))
    monkeypatch.setattr(passes, "choose", lambda network, report: CHOICE)
    monkeypatch.setattr(passes, "judge_dense", lambda network, able: _worked("dense", 9, able))
    monkeypatch.setattr(passes, "precisions", lambda: (("f32", "int8"), {}))
    monkeypatch.setattr(passes, "_worked", work)
    monkeypatch.setattr(passes, "_sitting", sitting)
    monkeypatch.setattr(passes, "at", lambda bench, precision: None)
    fake = SimpleNamespace(goal=SimpleNamespace(metric="top1"), baseline=SimpleNamespace(sha256="b" * 64))
    monkeypatch.setattr(passes, "bench_of", lambda network: fake)
    return worked


def test_what_is_done_is_not_done_again(bench: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that was interrupted goes on with the jobs that are left, and a finished one does nothing."""
    whole = passes._worked

    def interrupted(todo: list[Job], latency: object) -> Any:
        for place, found in enumerate(whole(todo, latency)):
            if place == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(passes, "_worked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        passes.train("tiny")
    done = bench[:2]
    bench.clear()
    monkeypatch.setattr(passes, "_worked", whole)
    passes.train("tiny")
    assert len(bench) == 2 * len(KEPT) - 2
    assert not set(done) & set(bench)
    bench.clear()
    passes.train("tiny")
    assert bench == []


def test_trials_of_another_dense_network_are_not_gone_on_with(
    bench: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done with another dense network is refused in one line that says what to remove."""
    passes.train("tiny")
    other = SimpleNamespace(baseline=SimpleNamespace(sha256="c" * 64))
    monkeypatch.setattr(passes, "bench_of", lambda network: other)
    with pytest.raises(BadInput, match=r"remove .*bench-trials"):
        passes.train("tiny")


def test_long_training_takes_the_first_seed_alone(bench: list[str]) -> None:
    """For each candidate once, for as many times the sweep's epochs as the network's setting says."""
    passes.train("tiny", passes.LONG)
    assert bench == [f"{name} seed 0 epochs 2" for name in KEPT]


def test_the_page_tells_every_part(bench: list[str]) -> None:
    """Tables at both precisions, the comparison with uniform pruning, what INT8 loses, and the ranks."""
    passes.train("tiny")
    passes.train("tiny", passes.LONG)
    passes.measure("tiny")
    found = lines("tiny")
    assert len(found) == 2 * 2 * len(KEPT) + len(KEPT) + 2 * 2
    told = CHOICE | {
        "metric": "top1",
        "epochs": 1.0,
        "longer": 2,
        "seeds": [0, 1],
        "refused": {"bf16": "no such instructions"},
    }
    page = section("tiny", found, told)
    for words in ("### f32", "### int8", "no such instructions", "Lost by INT8", "Spearman", "n = 2 seeds"):
        assert words in page
    ratios = [line["latency"]["ratio_f32"] for line in found if line["precision"] == "int8" and line["latency"]]
    assert max(ratios) == 0.5
    assert "Not finished" not in page


def test_half_a_bench_makes_a_page(bench: list[str]) -> None:
    """Without latencies and long training the page says what is not measured."""
    passes.train("tiny")
    told = CHOICE | {"metric": "top1", "epochs": 1.0, "longer": 2, "seeds": [0, 1], "refused": {}}
    page = section("tiny", lines("tiny"), told)
    assert "not measured" in page
    assert "Spearman" not in page


def test_a_seed_that_is_not_finished_waits(bench: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the seed with all its candidates trained is measured and in the tables."""
    every = passes._worked
    monkeypatch.setattr(passes, "_worked", lambda todo, latency: every(todo[: len(KEPT) + 1], latency))
    passes.train("tiny")
    passes.measure("tiny")
    told = CHOICE | {"metric": "top1", "epochs": 1.0, "longer": 2, "seeds": [0, 1], "refused": {}}
    assert set(passes.done("tiny", passes.LATENCY)) == {"seed 0 f32", "seed 0 int8"}
    page = section("tiny", lines("tiny"), told)
    assert "n = 1 seeds" in page
    assert "4 of 6 trials are trained, and 0 of 3 for longer" in page


def test_losses_are_paired_over_the_seeds(bench: list[str]) -> None:
    """A network that misses 5 % more of the same examples loses 5 %, with an interval around it."""
    passes.train("tiny")
    found = lines("tiny")
    plain, rounded = (grouped(found, "top1", each, 1.0)["chosen 1"] for each in ("f32", "int8"))
    drop, low, high = lost(plain, rounded)
    assert low < drop < high
    assert drop == pytest.approx(0.05, abs=0.02)


def test_ranks_agree_with_themselves() -> None:
    """Equal orders have correlation 1, opposite ones -1, and the interval holds what was found."""
    rising = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert ranks(rising, rising) == {"rho": pytest.approx(1), "tau": pytest.approx(1)}
    assert ranks(rising, rising[::-1])["rho"] == pytest.approx(-1)
    low, high = rank_interval(rising, [0.1, 0.3, 0.2, 0.4, 0.5])["rho"]
    assert low <= 0.9 <= high


def test_evaluation_noise_is_small_where_networks_differ_much() -> None:
    """Networks far apart keep their order on other examples; networks alike do not."""
    random = np.random.default_rng(0)
    apart, alike = (
        [(random.uniform(size=(500, 1)) < share).astype(float) for share in shares]
        for shares in ((0.1, 0.4, 0.7, 0.95), (0.7,) * 4)
    )
    assert noise(apart, "top1")["rho"] > 0.99 > noise(alike, "top1")["rho"]


def test_a_swap_within_the_noise_is_told_apart() -> None:
    """A pair that changes its order by one example of 400 counts as swapped, and as what evaluation could swap."""
    share = [0.5, 0.5025, 0.9]

    def rows(shares: list[float]) -> list[dict[str, Any]]:
        return [{"examples": {"holdout": packed(torch.arange(400)[:, None] < 400 * each)}} for each in shares]

    found = swapped(rows(share), rows([share[1], share[0], share[2]]), "top1")
    assert found == {"pairs": 3, "swapped": 1, "noise": 1}
