"""The profile: complete, resumable, and good for any network."""

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest
from torch import nn

from prunefleet.agent.commands.plan import code_told, described
from prunefleet.agent.compress.groups import survey
from prunefleet.agent.compress.merge import merge
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.measure import lock
from prunefleet.agent.measure.device import fingerprint
from prunefleet.agent.measure.runners.registry import runner_at
from prunefleet.agent.profile import make
from prunefleet.agent.profile.make import make_profile, network_hash
from prunefleet.agent.profile.points import Effort, points
from prunefleet.agent.profile.search_space import resolve
from prunefleet.agent.tasks.code.source import Code
from prunefleet.agent.tasks.task import Budget
from prunefleet.agent.trial.places import MeasuringPlace
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from support.brief import measure_briefly
from support.networks import Residual, SyntheticTask
from support.paths import TESTS
from support.wait import wait_for

UNKNOWN = replace(fingerprint(), kind="unknown")  # its channel grid has steps of 16 whatever the host's processor
HERE = (MeasuringPlace(UNKNOWN, runner_at("f32")),)
QUICK = Effort(examples=64, levels=2, mixed=3, together=4, session_s=0.2)
HOME = Path(__file__).parent
CHILD = f"""
import sys
sys.path[:0] = [{str(HOME)!r}, {str(TESTS)!r}]
import test_profile as test
test.profile_in(test.Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class Trained:
    """A dense model."""

    network: nn.Module
    sha256: str = "0" * 64


def trained(task: SyntheticTask) -> Trained:
    """The task's network after two epochs."""
    network = task.network()
    task.fit(network, Budget(epochs=2), lambda row: True)
    return Trained(network)


@cache
def usual() -> Trained:
    """The network of the task as it is, trained once for all tests; a plan leaves it as it was."""
    return trained(SyntheticTask())


def profile_in(cache: Path, task: SyntheticTask | None = None, effort: Effort = QUICK, **options: object) -> Profile:
    """A profile of a small task at f32 for the default goal."""
    dense = trained(task) if task else usual()
    return make_profile(task or SyntheticTask(), dense, HERE, "f32", Goal(), cache, effort=effort, **options)  # type: ignore[arg-type]


def evaluations(cache: Path) -> tuple[int, Profile]:
    """How often a profile made in `cache` had to evaluate, and the profile."""
    task = SyntheticTask()
    profile = make_profile(task, usual(), HERE, "f32", Goal(), cache, effort=QUICK)
    return task.evaluated, profile


@pytest.fixture(autouse=True, scope="module")
def own_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of locks of our own: nothing else on this machine is waited for."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock.tempfile, "gettempdir", lambda: str(folder))
        measure_briefly(patch.setattr)
        yield folder


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """One profile for the tests that only read it."""
    yield profile_in(tmp_path_factory.mktemp("profile"))


def test_each_group_has_a_curve_up_to_its_whole_width(profile: Profile, tmp_path: Path) -> None:
    """Metric and latency per level; at the whole width those of the dense model; all else that a search needs."""
    assert [group.name for group in profile.groups] == ["stem", "down_0"]
    for curve, group in zip(profile.curves, profile.groups, strict=True):
        assert curve.kept == (16, 32) and group.width == 32
        assert curve.metric[-1] == profile.dense_metric and curve.latency_ratio[-1] == 1
        assert 0 < curve.latency_ratio[0] < 1.1
    assert profile.warm[0] == {"stem": 0.0, "down_0": 0.0}
    assert len({tuple(profile.space.kept(point).items()) for point in profile.warm}) == len(profile.warm)
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile


def test_mixed_candidates_add_latencies_without_repeating_any(profile: Profile) -> None:
    """Kept channels of the curves and of mixed candidates, each once, on the grid."""
    kept = [tuple(kept.items()) for kept, _ in profile.latencies]
    assert len(set(kept)) == len(kept) == 3
    assert (("stem", 16), ("down_0", 16)) in kept


def test_many_groups_are_profiled_as_few_dimensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve for each dimension, whose groups are pruned together; the search space names dimensions."""
    monkeypatch.setattr(make, "merge", partial(merge, most=2))
    task = SyntheticTask(lambda: Residual(32, (16, 32, 32), classes=4))
    profile = profile_in(tmp_path, task, replace(QUICK, levels=1, mixed=1))
    assert [group.name for group in profile.groups] == ["stem_and_2_more", "down_0"]
    assert [curve.group for curve in profile.curves] == ["stem_and_2_more", "down_0"]
    assert set(resolve({}, profile, "p:v0")["parameters"]["ratio"]["parameters"]) == {"stem_and_2_more", "down_0"}
    assert {group.proof for group in profile.groups} == {"silence"}


def test_a_plan_tells_groups_what_stays_whole_and_what_is_merged() -> None:
    """A line each, so that nothing is left out in silence."""
    task = SyntheticTask(lambda: Residual(32, (16,) * 4 + (32,) * 26, classes=4))
    lines = list(described(survey(task.network(), task.example_input())))
    assert sum(line.startswith("group") and line.endswith(" (proof: silence)") for line in lines) == 31
    assert "whole head: it makes the network's output" in lines
    assert 31 - sum(len(line.split(":")[1].split(",")) - 1 for line in lines if line.startswith("merged")) == 24


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    """From none to all, and says what was done."""
    seen: list[tuple[int, int, str]] = []
    profile_in(tmp_path, report=lambda *row: seen.append(row))
    assert seen[0] == (0, 3, "dense model evaluated") and seen[-1][:2] == (3, 3)
    assert any("stem 16 channels: top1 0." in text for _, _, text in seen)


def test_finished_points_are_not_measured_again(tmp_path: Path) -> None:
    """The second time nothing is evaluated, and the curves are those of the first."""
    count, first = evaluations(tmp_path)
    assert count == 3
    again, second = evaluations(tmp_path)
    assert again == 0 and second.curves == first.curves and second.latencies == first.latencies


def test_other_weights_are_measured_anew(tmp_path: Path) -> None:
    """Results belong to the dense model's hash, the data's, and the device's."""
    profile_in(tmp_path)
    task = SyntheticTask()
    other = replace(usual(), sha256="1" * 64)
    make_profile(task, other, HERE, "f32", Goal(), tmp_path, effort=QUICK)
    assert task.evaluated == 3


# `make test` has points that are not measured again, above, and a journal whose last line is torn, below.
@pytest.mark.slow
def test_a_killed_plan_goes_on_where_it_was(tmp_path: Path, own_host: Path) -> None:
    """Killed with -9 after its first points, started again: what was finished stays, what is missing is measured."""
    argv, env = [sys.executable, "-c", CHILD, str(tmp_path)], {**os.environ, "TMPDIR": str(own_host)}
    with subprocess.Popen(argv, env=env) as child:
        try:
            wait_for(lambda: sum(path.read_bytes().count(b"\n") for path in tmp_path.rglob("*.jsonl")) >= 2, 60)
        finally:
            child.send_signal(signal.SIGKILL)
    (path,) = tmp_path.rglob("*.jsonl")
    before = path.read_bytes().rpartition(b"\n")[0]
    count, profile = evaluations(tmp_path)
    assert count <= 3 - before.count(b"metric") and path.read_bytes().startswith(before)
    assert len(profile.latencies) == 3


def test_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    """A process killed in the middle of a line loses that line alone."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("one", 1.5)
    with path.open("ab") as file:
        file.write(b'{"key": "two", "val')
    with Journal(path) as journal:
        assert "two" not in journal and journal["one"] == 1.5
        journal.add("two", [2])
    with Journal(path) as journal:
        assert journal["two"] == [2] and journal["one"] == 1.5


def test_mixed_candidates_are_left_out_when_time_is_over(tmp_path: Path) -> None:
    """Curves are never cut short; what is optional is."""
    hurried = Effort(examples=64, mixed=3, together=2, session_s=0.2, seconds=0.0)
    seen: list[tuple[int, int, str]] = []
    profile = profile_in(tmp_path, effort=hurried, report=lambda *row: seen.append(row))
    assert len(profile.latencies) == 2 and [len(curve.kept) for curve in profile.curves] == [2, 2]
    assert seen[-1] == (2, 2, "time is over: 1 mixed candidates left out")


# `make test` has a network of more groups, merged, above.
@pytest.mark.slow
def test_another_network_works_as_well(tmp_path: Path) -> None:
    """Blocks, branches and a concatenation, on the grid, without a change to the task's code."""
    task = SyntheticTask(lambda: Residual(48, (24,), (20, 32), classes=4))
    profile = profile_in(tmp_path, task)
    assert {curve.group: curve.kept for curve in profile.curves} == {
        "stem": (16, 32, 48),
        "down_0": (16, 24),
        "branches_0": (16, 20),
        "branches_1": (16, 32),
    }


def test_levels_are_thinned_evenly_where_there_are_many() -> None:
    """A wide group gets as many levels as the effort allows, from the narrowest to the widest."""
    space = Space((GroupSpec("wide", 512, 16),))
    alone = [kept["wide"] for group, kept in points(space, Effort(levels=4, mixed=0)) if group]
    assert len(alone) == 4 and alone[0] == 64 and alone[-1] == 496


def test_points_are_the_same_on_every_call() -> None:
    """So that a resumed plan asks for what it has."""
    space = Space((GroupSpec("a", 64, 16), GroupSpec("b", 128, 16)))
    first = points(space, Effort())
    assert first == points(space, Effort()) and len({tuple(kept.items()) for _, kept in first}) == len(first)


def test_a_metric_that_the_task_has_not_is_refused(tmp_path: Path) -> None:
    """Before anything is measured, with those it has."""
    with pytest.raises(BadInput, match=r"objective\.metric: got 'miou'; the task synthetic gives top1"):
        make_profile(SyntheticTask(), usual(), HERE, "f32", Goal(metric="miou"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_sweep_file_gets_its_space_and_keeps_the_rest(profile: Profile) -> None:
    """Ratios on the grid, the profile's artifact, the dense model's hash; every key of the user's as it was."""
    sweep = {"name": "mine", "run_cap": 7, "parameters": {"task": {"value": "x"}, "recipe": {"parameters": {}}}}
    before = copy.deepcopy(sweep)
    for key in ("code", "data"):
        assert resolve(sweep, profile, "p:v0", **{key: "d"})["parameters"][key] == {"value": "d"}
        named = {"parameters": {**sweep["parameters"], key: {"value": "of another plan"}}}
        assert key not in resolve(named, profile, "p:v0")["parameters"]
    resolved = resolve(sweep, profile, "profile-x:v0")
    assert sweep == before
    assert resolved["parameters"].pop("ratio") == {
        "parameters": {"stem": {"values": [0.0, 0.5]}, "down_0": {"values": [0.0, 0.5]}}
    }
    assert resolved["parameters"].pop("profile") == {"value": "profile-x:v0"}
    assert resolved["parameters"].pop("baseline") == {"value": "0" * 64}
    assert resolved == before


@pytest.mark.parametrize(("upload", "words"), [("all", "uploaded with the sweep"), ("bundles", "not uploaded; copy")])
def test_what_is_sent_of_a_tasks_code_is_told_before(upload: str, words: str) -> None:
    """A line for each file, and whether they leave; nothing for a task of the package's own."""
    code = Code({"b.py": b"x", "a/c.py": b""})
    *files, last = code_told(code, upload)
    assert files == ["code a/c.py: 0 bytes", "code b.py: 1 bytes"] and last.startswith(
        f"code {code.sha256[:12]}: {words}"
    )
    assert list(code_told(None, upload)) == []


def test_a_ratio_block_of_ones_own_is_checked_and_kept(profile: Profile) -> None:
    """Groups left out stay whole; an unknown one is refused by name."""
    own = {"parameters": {"stem": {"values": [0.0, 0.5]}}}
    assert resolve({"parameters": {"ratio": own}}, profile, "p:v0")["parameters"]["ratio"] == own
    wrong = {"parameters": {"stern": {"values": [0.0, 0.5]}}}
    with pytest.raises(BadInput, match=r"ratio\.stern: .*name a layer group: stem, down_0"):
        resolve({"parameters": {"ratio": wrong}}, profile, "p:v0")
    asked = {"parameters": {"measure": {"parameters": {"energy": {"value": "tegrastats"}}}}}
    for given, energy in (({"parameters": {}}, "rapl"), (asked, "tegrastats")):
        measure = resolve(given, profile, "p:v0", energy="rapl")["parameters"]["measure"]
        assert measure == {"parameters": {"energy": {"value": energy}}}


def test_precisions_that_are_searched_are_held_against_f32(profile: Profile) -> None:
    """Unless the user says otherwise, or f32 is none of them; one precision is held against itself."""

    def measure(**given: object) -> object:
        sweep = {"parameters": {"measure": {"parameters": given}}}
        return resolve(sweep, profile, "p:v0")["parameters"]["measure"]["parameters"].get("against")

    assert measure(precision={"values": ["int8", "f32"]}) == {"value": "f32"}
    assert measure(precision={"values": ["int8", "f32"]}, against={"value": "same"}) == {"value": "same"}
    assert measure(precision={"values": ["int8", "bf16"]}) is None
    assert measure(precision={"value": "int8"}) is None


def test_a_networks_hash_is_that_of_its_shape() -> None:
    """Other weights, the same hash; another width, another."""
    first, same, other = Residual(16, (8,)), Residual(16, (8,)), Residual(16, (9,))
    nn.init.zeros_(same.stem.weight)
    assert network_hash(first) == network_hash(same) != network_hash(other)
