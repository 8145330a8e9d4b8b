"""What `prunefleet up` tells at the end."""

import io
from argparse import Namespace
from typing import Any

import pytest
from rich.console import Console

from prunefleet.infra.fleet.addresses import join_lines, reachable_from_elsewhere
from prunefleet.infra.fleet.up import up as module
from prunefleet.infra.fleet.up.answer_summary import answer_text, document, trials_table
from prunefleet.infra.fleet.up.display import Screen
from prunefleet.infra.fleet.up.up import page, standing
from prunefleet.infra.wandb_api import RemoteRun, RemoteSweep, _plain


def figure(key: str, value: float) -> dict[str, float]:
    return {key: value, f"{key}_lo": value * 0.98, f"{key}_hi": value * 1.02}


TIME = {**figure("latency_ratio", 0.3), **figure("latency_p10_ms", 0.06)}
ROW: dict[str, Any] = {**figure("test", 0.92), **TIME, "precision": "f32"}
ANSWER: dict[str, Any] = {
    "winner": {
        **ROW,
        **figure("test_drop", 0.008),
        "run": "ab12cd34",
        "kept": {"stem": 32, "a": 64},
        "ratios": {"stem": 0.0, "a": 0.5},
        "artifact": "e/p/candidate-ab12cd34:v0",
    },
    "controls": {
        "dense": ROW,
        "dense_default": {**ROW, **figure("test", 0.919), "precision": "bf16"},
        "uniform": {
            **ROW,
            "kept": {"stem": 16, "a": 64},
            "equal_quality": figure("saved", 0.2),
            "equal_latency": figure("gain", 0.003),
        },
    },
    "hypervolume_gain": {"warm": 0.06, "all": 0.066, "gain": 0.006},
}
RUNS = (
    RemoteRun(
        "one",
        "finished",
        {"kept": {"a": 64}, "host": "h"},
        {"outcome": "scored", "score": 0.7, "score_terms": {"metric": 0.92}, "val_top5": 0.99},
    ),
    RemoteRun("two", "finished", {}, {"outcome": "diverged"}),
    RemoteRun("three", "running"),
)
VIEW = RemoteSweep("e/p/s", "RUNNING", 20, RUNS)


def test_the_answer_names_winner_and_controls() -> None:
    """The answer is five statements: winner's channels and figures, dense networks, uniform, and the search's gain."""
    text = "\n".join(answer_text(ANSWER))
    for words in (
        "ab12cd34",
        "a 64 (-50%)",
        "92.00% [90.16%, 93.84%]",
        "bf16, test 91.90%",
        "0.060 [0.059, 0.061] ms",
        "0.80%",
    ):
        assert words in text
    for words in ("20.0% [19.6%, 20.4%] less latency at equal accuracy", "(gain 0.00600, 10.0%)"):
        assert words in text


def test_a_figure_below_zero_has_the_other_word() -> None:
    """What is better than the dense network gains, what is slower than uniform takes more: no loss of minus a point."""
    better = {**ANSWER["winner"], "test_drop": -0.003, "test_drop_lo": -0.01, "test_drop_hi": 0.004}
    slower = {"equal_quality": {"saved": -0.02, "saved_lo": -0.05, "saved_hi": None}}
    controls = {**ANSWER["controls"], "uniform": {**ANSWER["controls"]["uniform"], **slower}}
    text = "\n".join(answer_text({**ANSWER, "winner": better, "controls": controls}))
    assert "gains 0.30% [-0.40%, 1.00%]" in text and "the best takes 2.0% [?, 5.0%] more latency" in text
    assert "loses 0.80% [0.78%, 0.82%]" in answer_text(ANSWER)[1]


class Spoken(Screen):
    """A screen that remembers what was said."""

    def __init__(self, terminal: bool) -> None:
        super().__init__(Console(file=io.StringIO(), force_terminal=terminal))
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_page_is_told_with_a_link_that_signs_in(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A log has the bare address too, which stays good; the link is for the next minutes."""
    link = "http://h:1/login?ticket=t"
    monkeypatch.setattr(module, "sign_in_link", lambda url, token, entity, onward: f"{link}&{token}{entity}{onward}")
    hub, spoken = Namespace(admin_token="a"), Spoken(terminal)
    module._tell_the_page(Namespace(state={"url": "http://h:1", "entity": "e"}, hub=hub, screen=spoken), "e/p/s")  # type: ignore[arg-type]
    signed, bare = f"{link}&ae/e/p/sweeps/s", "Page: http://h:1/e/p/sweeps/s"
    assert spoken.lines == ([f"Page: {signed}"] if terminal else [bare, f"Sign in within ten minutes: {signed}"])


def test_a_winner_that_holdout_doubts_is_told_so() -> None:
    """Where holdout alone puts the winner beyond the limit, the answer says so."""
    doubted = {**ANSWER, "winner": {**ANSWER["winner"], "holdout_agrees": False}}
    assert "by holdout alone" in answer_text(doubted)[1]
    assert "by holdout alone" not in answer_text(ANSWER)[1]


def test_an_answer_without_uniform_or_winner_is_told() -> None:
    """A space without uniform candidates, and a sweep without a score, are told in words."""
    controls = {key: row for key, row in ANSWER["controls"].items() if key != "uniform"}
    assert any("no other aligned uniform" in line for line in answer_text({**ANSWER, "controls": controls}))
    assert answer_text({"winner": None, "controls": {}}) == [
        "No trial came to a score; the table and the runs' logs say why."
    ]


def test_the_table_has_a_row_per_run() -> None:
    """Every run has its row, also one that failed and one that is still running."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(trials_table(VIEW))
    text = console.export_text()
    assert all(words in text for words in ("one", "scored", "0.7000", "92.00%", " 64 ", "diverged", "running"))
    assert "kept: channels of a" in text


def test_what_runs_have_in_common_needs_no_column() -> None:
    """Precision and host have a column each where a sweep has several of them."""

    def titles(*configs: dict[str, object]) -> list[object]:
        runs = tuple(RemoteRun(str(place), "finished", config) for place, config in enumerate(configs))
        return [column.header for column in trials_table(RemoteSweep("e/p/s", "RUNNING", 20, runs)).columns][-2:]

    int8, f32 = {"measure": {"precision": "int8"}, "host": "h"}, {"measure": {"precision": "f32"}, "host": "h"}
    assert titles(int8, int8, {}) == ["kept", "why"]
    assert titles(int8, f32) == ["why", "precision"]
    assert titles(int8, f32 | {"host": "i"}) == ["precision", "host"]


def test_the_winners_precision_is_told_where_it_is_not_the_dense_networks() -> None:
    """A sweep that searched the precision may end with INT8 beside the dense network at f32."""
    for precision, words in (("int8", "run ab12cd34, at int8, keeps"), ("f32", "run ab12cd34, keeps")):
        assert words in answer_text({**ANSWER, "winner": {**ANSWER["winner"], "precision": precision}})[0]


def test_the_document_counts_outcomes() -> None:
    """The answer file counts how the runs ended and carries the answer whole."""
    told = document(VIEW, 2, {"dense": 1.0}, ANSWER)
    assert told["outcomes"] == {"scored": 1, "diverged": 1, "running": 1}
    assert told["agents"] == 2 and told["winner"]["run"] == "ab12cd34" and len(told["trials"]) == 3


def test_a_sweep_ends_with_its_last_run() -> None:
    """A finished sweep whose run is still under way has not ended."""
    assert not RemoteSweep("e/p/s", "FINISHED", 3, RUNS).ended
    assert RemoteSweep("e/p/s", "FINISHED", 3, RUNS[:2]).ended
    assert not RemoteSweep("e/p/s", "RUNNING", 3, RUNS[:2]).ended


def test_a_line_tells_how_the_sweep_stands() -> None:
    """The progress line has the runs, how they ended and the best score."""
    assert standing(VIEW) == "3/20 runs: 1 diverged, 1 running, 1 scored; best score 0.7000"


def test_how_to_join_is_two_variables_and_a_line() -> None:
    """Another machine gets two exports and one line with the environment's path; loopback is reachable by none."""
    url, key, line = join_lines("http://10.0.0.1:8765", "k" * 40, "e/p/s")
    assert url == "export WANDB_BASE_URL=http://10.0.0.1:8765" and key.startswith("export WANDB_API_KEY=")
    assert line.startswith("PATH=") and line.endswith("wandb agent --forward-signals e/p/s")
    assert reachable_from_elsewhere("http://10.0.0.1:8765")
    assert not reachable_from_elsewhere("http://127.0.0.1:8765")
    assert page("http://h:1", "e/p/s") == "http://h:1/e/p/sweeps/s"


def test_inner_dictionaries_of_a_summary_become_plain() -> None:
    """The client's own class for a summary's inner dictionaries, which is no mapping, is read as a plain one."""

    class Inner:
        def keys(self) -> list[str]:
            return ["kind"]

        def __getitem__(self, key: str) -> str:
            return "warm"

    assert _plain({"why": Inner(), "score": 0.5, "_wandb": {}}) == {"why": {"kind": "warm"}, "score": 0.5}
