"""What finished stages leave: found again by content, whole or not at all, within bounds."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.agent.compress import cut
from prunefleet.agent.host import failures
from prunefleet.agent.host.cache_files import limit_bytes
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.runners import base
from prunefleet.agent.trial import stage_cache as module
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.run import Trial, run_trial
from prunefleet.agent.trial.stage_cache import Stages, bytes_of
from prunefleet.agent.trial.stages import remembered
from prunefleet.objective import sweepfile
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals import score
from prunefleet.objective.trial import Candidate, Failure, FailureKind

from support.trial_context import tiny_context

ARRAYS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.uint8)}


def _stages(folder: Path, *about: object, limit: int = 10**6) -> Stages:
    return Stages(*(about or ("dense", "kept")), folder=folder, limit=limit)


# One stage


def test_a_stage_is_recalled_as_it_was_kept(tmp_path: Path) -> None:
    """Values and arrays, empty ones too, to the last bit, by another process's object, which tells what it recalled."""
    _stages(tmp_path).keep("train", 1, value={"x": [0.1, None]}, arrays=ARRAYS)
    _stages(tmp_path).keep("measure", value=0.25)
    again = _stages(tmp_path)
    left = again.recall("train", 1)
    assert left is not None and left.value == {"x": [0.1, None]}
    assert all(torch.equal(left.arrays[key], array) for key, array in ARRAYS.items())
    measured = again.recall("measure")
    assert measured is not None and measured.value == 0.25 and again.recalled == ["train", "measure"]


def test_other_content_is_not_recalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another candidate, another recipe, another stage and another version of the code are all misses."""
    _stages(tmp_path).keep("train", 1, value=1)
    assert _stages(tmp_path, "dense", "other").recall("train", 1) is None
    assert _stages(tmp_path).recall("train", 2) is None and _stages(tmp_path).recall("measure", 1) is None
    monkeypatch.setattr(module, "code_hash", lambda: "newer")
    assert _stages(tmp_path).recall("train", 1) is None


def test_the_hash_of_the_code_is_of_all_rooms_that_a_trial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change to any file of agent or objective, however deep, is another version of the code."""
    found: set[str] = set()
    monkeypatch.setattr(Path, "read_bytes", lambda path: found.add(str(path)) or b"")
    module.code_hash.__wrapped__()
    assert {each.__file__ for each in (module, cut, base, failures, score, sweepfile)} <= found


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_file_is_a_missing_one(tmp_path: Path, damage: str) -> None:
    """Cut off, one bit turned, empty, or something else altogether: computed again, then recalled."""
    _stages(tmp_path).keep("train", value=1, arrays=ARRAYS)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"cut": content[:50], "flip": content, "empty": b"", "other": b"x" * 100}[damage])
    assert _stages(tmp_path).recall("train") is None
    _stages(tmp_path).keep("train", value=1, arrays=ARRAYS)
    assert _stages(tmp_path).recall("train") is not None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.booleans()), max_size=20))
def test_the_folder_keeps_its_limit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    """Whatever is kept and recalled, the files have at most so many bytes; what is recalled is what was kept last."""
    folder, kept = tmp_path_factory.mktemp("stages"), dict[int, int]()
    for name, size, recall in steps:
        stages = _stages(folder, limit=1500)
        if recall:
            left = stages.recall("train", name)
            assert left is None or len(left.arrays["x"]) == kept[name]
        else:
            stages.keep("train", name, value=None, arrays={"x": torch.zeros(size, dtype=torch.uint8)})
            kept[name] = size
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 1500


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    """A recalled stage stays where one that nobody asked for goes; what is larger than the limit is not kept."""
    room = {"x": torch.zeros(300, dtype=torch.uint8)}
    for number in range(3):
        _stages(tmp_path, limit=1500).keep("train", number, value=None, arrays=room)
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_atime - 10, path.stat().st_mtime - 10))
    assert _stages(tmp_path, limit=1500).recall("train", 0) is not None
    _stages(tmp_path, limit=1500).keep("train", 3, value=None, arrays=room)
    _stages(tmp_path, limit=1500).keep("train", 4, value=None, arrays={"x": torch.zeros(2000, dtype=torch.uint8)})
    found = [_stages(tmp_path).recall("train", number) is not None for number in range(5)]
    assert found == [True, False, True, True, False]


def test_without_room_nothing_is_remembered(tmp_path: Path) -> None:
    """A limit of 0 switches it off."""
    _stages(tmp_path).keep("train", value=1)
    assert _stages(tmp_path, limit=0).recall("train") is None
    _stages(tmp_path, limit=0).keep("measure", value=1)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In MiB; another value than a whole number is refused in one line."""
    monkeypatch.setenv("PRUNEFLEET_CACHE_MB", "2")
    assert limit_bytes() == 2 * 2**20
    monkeypatch.setenv("PRUNEFLEET_CACHE_MB", "2 GB")
    with pytest.raises(BadInput, match="PRUNEFLEET_CACHE_MB: got '2 GB'; give a whole number of MiB"):
        limit_bytes()


def test_a_full_disk_costs_the_next_trial_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial that cannot keep a stage goes on."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prunefleet.agent.host.cache_files.os.fsync", full)
    _stages(tmp_path).keep("train", value=1)
    assert _stages(tmp_path).recall("train") is None and not list(tmp_path.iterdir())


WRITER = """
import sys, torch
from pathlib import Path
from prunefleet.agent.trial.stage_cache import Stages
for turn in range(100):
    stages = Stages("same", folder=Path(sys.argv[1]), limit=60_000)
    number = turn % 4
    stages.keep("train", number, value=number, arrays={"x": torch.full((20_000,), number, dtype=torch.uint8)})
    left = stages.recall("train", (number + 1) % 4)
    assert left is None or (left.value == (number + 1) % 4 and (left.arrays["x"] == left.value).all())
"""


def test_agents_share_the_folder(tmp_path: Path) -> None:
    """Two processes that keep, recall and make room at once never see a half file, and none fails."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "trials")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(one.communicate(timeout=120)[1], one.returncode) for one in both] == [("", 0), ("", 0)]


# A trial


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialContext]:
    with tiny_context(tmp_path_factory.mktemp("cache")) as made:
        yield made


CANDIDATE = Candidate({"conv2": 0.5}, epochs=0.5)


def _run(
    context: TrialContext, folder: Path, candidate: Candidate = CANDIDATE, watch: StageWatch | None = None
) -> tuple[object, StageWatch]:
    watch = watch or StageWatch()
    folder.mkdir(exist_ok=True)
    stages = remembered(context, candidate)
    return run_trial(candidate, context, folder, watch, stages), watch


def test_a_repeated_candidate_is_only_pruned(context: TrialContext, tmp_path: Path) -> None:
    """It comes to the same measurement, weights and files, without export, measurement or training."""
    first, _ = _run(context, tmp_path / "first")
    again, watch = _run(context, tmp_path / "again")
    assert isinstance(first, Trial) and isinstance(again, Trial)
    assert list(watch.seconds) == ["prune"]
    assert (again.measurement, again.score, again.parity) == (first.measurement, first.score, first.parity)
    states = zip(first.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in states) and not again.network.training
    for name in ("model.xml", "model.bin", "samples.json.gz"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert bytes_of({"x": again.exported.xml})["x"].numel() > 0


def test_an_interrupted_trial_goes_on_after_its_last_finished_stage(context: TrialContext, tmp_path: Path) -> None:
    """A stop in training keeps the latency; one after it keeps the trained network too."""
    candidate = replace(CANDIDATE, seed=1)
    rows: list[object] = []
    result, _ = _run(
        context, tmp_path / "a", candidate, StageWatch(log=rows.append, stop=lambda: "stop" if rows else None)
    )
    assert isinstance(result, Failure) and result.stage == "train"
    stopped, watch = _run(context, tmp_path / "b", candidate, _stop_at("export_final"))
    assert isinstance(stopped, Failure) and "measure" not in watch.seconds and "train" in watch.seconds
    result, watch = _run(context, tmp_path / "c", candidate)
    assert isinstance(result, Trial) and list(watch.seconds) == ["prune", "export_final", "parity", "evaluate"]


def _stop_at(stage: str) -> StageWatch:
    watch = StageWatch()
    watch.stop = lambda: "stop" if watch.stage == stage else None
    return watch


@pytest.mark.parametrize(
    "change", [{"epochs": 0.6}, {"seed": 7}, {"ratios": {"conv2": 0.25}}, {"importance": "l1"}, {"ranking": "filter"}]
)
def test_another_candidate_is_trained_itself(context: TrialContext, change: dict[str, object]) -> None:
    """Channels and how they were chosen, epochs and seed are all part of what is remembered."""
    mine = replace(CANDIDATE, seed=4)  # no other test's, for what is kept here is no network
    remembered(context, mine).keep("train", *_about(context, mine), value={})
    assert remembered(context, mine).recall("train", *_about(context, mine)) is not None
    other = replace(mine, **change)  # type: ignore[arg-type]
    assert remembered(context, other).recall("train", *_about(context, other)) is None


def _about(context: TrialContext, candidate: Candidate) -> tuple[object, ...]:
    from prunefleet.agent.trial.stages import _training

    return _training(context, candidate)


def test_another_recipe_is_trained_itself(context: TrialContext) -> None:
    """So are learning rate and distillation."""
    here = _about(context, CANDIDATE)
    assert here != _about(replace(context, lr=0.01), CANDIDATE) != _about(replace(context, distill=True), CANDIDATE)


def test_a_damaged_cache_is_done_over(context: TrialContext, tmp_path: Path) -> None:
    """Every file of the cache cut off: the trial comes to its score all the same."""
    candidate = replace(CANDIDATE, seed=2)
    _run(context, tmp_path / "a", candidate)
    for path in (Path(os.environ["PRUNEFLEET_CACHE"]) / "trials").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    result, watch = _run(context, tmp_path / "b", candidate)
    assert isinstance(result, Trial) and {"measure", "train", "evaluate"} <= set(watch.seconds)


def test_a_timed_out_trial_is_the_hosts_failure(context: TrialContext, tmp_path: Path) -> None:
    """Its time over it ends at the next report or stage, and may be tried again on a faster host."""
    result, watch = _run(context, tmp_path / "a", replace(CANDIDATE, seed=3), StageWatch(deadline=0.0))
    assert isinstance(result, Failure) and result.kind is FailureKind.TIMEOUT and result.kind.blames_host
    assert result.message == "not done within recipe.timeout_minutes" and not watch.rung({})
