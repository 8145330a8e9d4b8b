"""The search from Python: ask, tell, recommend."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.infra.controller.pruning.engine import recommend
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.space import Space

from studies.search.plugin import PruneFleet
from support.controller import DENSE, GOAL, GROUPS, Problem, sweep, sweep_config
from support.paths import ROOT

PROBLEM = Problem.seeded(0)


def begun(name: str = "s") -> AskTell:
    return AskTell(sweep_config(), PROBLEM.profile(), name)


def told(search: AskTell, count: int) -> list[tuple[dict[str, int], int]]:
    """Candidates asked for one at a time, each told what it measures, and how often each was asked for before."""
    asked = []
    for _ in range(count):
        ((name, suggestion),) = search.ask().items()
        kept = Space(GROUPS).kept(suggestion.config["ratio"])
        trial = PROBLEM.trial(name, suggestion.params, kept, 0)
        search.tell(name, trial.latency_ratio, trial.metric)
        asked.append((kept, suggestion.repeat))
    return asked


def test_the_same_answers_lead_to_the_same_questions() -> None:
    """Another object that was told the same asks the same, and twice for the same channels only on purpose."""
    first = told(begun(), 12)
    assert first == told(begun(), 12)
    counts = [kept for kept, _ in first]
    assert [repeat for _, repeat in first] == [counts[:place].count(kept) for place, kept in enumerate(counts)]


def test_what_is_waited_for_is_not_asked_again() -> None:
    """Several at once are distinct, and answers may come in any order."""
    search = begun()
    asked = search.ask(10)
    assert len(asked) == len({tuple(each.params.items()) for each in asked.values()}) == 10
    search.tell("t7", outcome="infeasible")
    search.tell("t3", 0.4, outcome="skipped")
    assert [trial.name for trial in search.trials if not trial.pending] == ["t3", "t7"]
    assert search.recommend() is None


def test_a_drop_may_be_told_that_is_counted_from_another_dense_metric() -> None:
    """A metric of other examples than the profile's is no drop from it; the drop told is what counts."""
    search = begun()
    ((name, _),) = search.ask().items()
    search.tell(name, 0.4, metric=0.8, drop=0.004)
    (trial,) = search.trials
    assert (trial.metric, trial.drop) == (0.8, 0.004) and trial.value == pytest.approx(0.6, abs=0.01)
    ((name, _),) = search.ask().items()
    with pytest.raises(BadInput, match="metric: got None; give a finite number for a trial that is scored"):
        search.tell(name, 0.4, drop=0.004)


def test_the_recommended_trial_is_one_that_was_scored() -> None:
    """With what the models expect of it, whose intervals hold what was measured of such a well-behaved problem."""
    search = begun()
    told(search, 14)
    found = search.recommend()
    assert found is not None
    trial = next(trial for trial in search.trials if trial.name == found.trial)
    assert trial.latency_ratio is not None and found.why["score"] == round(found.score, 5)
    assert found.why["latency_ratio"]["lo"] * 0.97 < trial.latency_ratio < found.why["latency_ratio"]["hi"] * 1.03


def test_luck_is_not_recommended() -> None:
    """Among trials of a noisy metric the recommended ones are truly better, on average, than the best observed ones."""
    noisy, gains = replace(PROBLEM, noise=0.01), []
    for seed in range(8):
        profile, random = noisy.profile(seed), np.random.default_rng(seed)
        spec = sweep("bayes", profile)
        trials, kept = [], {}
        for place in range(24):
            ratios = {group.name: float(random.uniform(0, 0.6)) for group in GROUPS}
            kept[f"t{place}"] = Space(GROUPS).kept(ratios)
            params = {f"ratio.{group}": ratio for group, ratio in Space(GROUPS).ratios(kept[f"t{place}"]).items()}
            trials.append(noisy.trial(f"t{place}", params, kept[f"t{place}"], seed))
        found = recommend(spec, profile, GOAL, trials, 0)
        assert found is not None and found.kept == kept[found.trial]
        luckiest = max(trials, key=lambda trial: trial.value or -1.0)
        gains.append(noisy.score(kept[found.trial]) - noisy.score(kept[luckiest.name]))
    assert np.mean(gains) > 0 and min(gains) > -0.5


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"name": "t9", "latency_ratio": 0.5, "metric": 0.9}, "name: got 't9'; name a trial that is waited for: t0"),
        ({"name": "t0", "metric": 0.9}, "latency_ratio: got None; give a finite number for a trial that is scored"),
        ({"name": "t0", "latency_ratio": float("nan"), "outcome": "skipped"}, "latency_ratio: got nan; give a finite"),
        ({"name": "t0", "latency_ratio": 0.5, "metric": float("nan")}, "metric: got nan; give a finite number"),
    ],
)
def test_a_result_that_cannot_be_right_is_refused(figures: dict[str, float], line: str) -> None:
    """Named in one line; the trial is still waited for."""
    search = begun()
    search.ask()
    with pytest.raises(BadInput) as error:
        search.tell(**figures)  # type: ignore[arg-type]
    assert str(error.value).startswith(line)
    search.tell("t0", 1.0, DENSE)


def test_the_lines_of_the_documentation_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sweep file and a profile in the folder they ask, tell and recommend."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep_config()))
    PROBLEM.profile().save(Path("profile.json"))
    text = (ROOT / "docs" / "controller.md").read_text()
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert "Recommendation(trial='t0'" in capsys.readouterr().out


@pytest.mark.parametrize("kind", "ABCD")
def test_the_plug_in_of_the_search_bench_plays_by_its_rules(kind: str) -> None:
    """It asks within the bounds, is told in any order, and recommends what was tried, for at most 400 latencies."""
    timed: list[dict[str, float]] = []

    def latency(configs: list[dict[str, float]]) -> list[float]:
        timed.extend(configs)
        return [1 + sum(1 - ratio for ratio in config.values()) for config in configs]

    space = [{"name": f"r_{place:02d}", "min": 0.0, "max": 0.9} for place in range(3)]
    objective = {"kind": kind, "w": -0.07, "lat0": 4.0, "target": 2.0, "base_acc": 90.0, "max_drop": 1.0}
    ratios = [0.1, 0.3, 0.5, 0.7, 0.9]
    info = {
        "channels": [32, 64, 96],
        "round_to": 8,
        "sens_ratios": ratios,
        "sens_drop": 3 * [[50 * r**2 for r in ratios]],
    }
    plugin = PruneFleet(space, objective, {**info, "measure_latency": latency}, 0)
    asked = plugin.ask(10)
    assert len(asked) == 10 and all(0 <= ratio <= 0.9 for config in asked for ratio in config.values())
    for config in reversed(asked):
        loss = sum(10 * ratio**2 for ratio in config.values())
        plugin.tell(config, {"acc": 90 - loss, "latency": latency([config])[0], "value": 0.0})
    assert plugin.recommend() in asked and len(timed) - 10 <= 400


def test_a_sweep_without_an_objective_is_refused() -> None:
    """There would be nothing to search for."""
    config = sweep_config()
    del config["parameters"]["objective"]
    with pytest.raises(BadInput, match=r"parameters\.objective"):
        AskTell(config, PROBLEM.profile())
