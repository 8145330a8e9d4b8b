"""`prunefleet init`: what it asks, what it refuses, and that what it writes is what a sweep and a task must be."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.agent.__main__ import main
from prunefleet.agent.commands import init as command
from prunefleet.agent.commands import starting_files
from prunefleet.agent.commands.starting_files import Start, TaskName
from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.tasks.metrics import OF_POSITIVE
from prunefleet.agent.tasks.ready.labelled import Labelled
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import Budget, Task, task_hash
from prunefleet.agent.trial.context import loaded
from prunefleet.agent.trial.request import from_sweep
from prunefleet.objective.sweepfile import read_sweep_file, validate

from support.pictures import folders

modules = (f"made_{number}" for number in itertools.count())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, no terminal, and a folder `parts` of pictures beside it."""
    folders(tmp_path / "parts", 8)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PRUNEFLEET_DATA", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    return tmp_path / "work"


Answer = Callable[..., list[str]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """A terminal on which these answers are typed, one after the other; returns what is asked."""

    def typed(*said: str) -> list[str]:
        asked: list[str] = []
        rest = iter(said)

        def reply(text: str) -> str:
            asked.append(text)
            try:
                return next(rest)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", reply)
        return asked

    return typed


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The plain options of a sweep file."""
    return {name: spec["value"] for name, spec in config["parameters"]["options"]["parameters"].items()}


PICTURES = ["init", "--network", "resnet9", "--data", "../parts"]


def test_without_a_terminal_each_missing_flag_has_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, exit code 2, and nothing is written; what has a default is not asked for."""
    assert main(["init"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": got None; give ")[0] for line in lines] == ["prunefleet: --network", "prunefleet: --data"]
    assert main([*PICTURES, "--metric", "recall"]) == 2
    assert capsys.readouterr().err.startswith("prunefleet: --positive-class: got None; give the class")
    assert list(here.iterdir()) == []


def test_pictures_in_folders(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is valid, names folder, network, metric, loss and device, and the task it names loads from it."""
    flags = ["--metric", "recall", "--positive-class", "crack", "--max-drop", "0.03", "--device", "board,local"]
    assert main([*PICTURES, *flags]) == 0
    config = read_sweep_file(here / "sweep.yaml")
    assert options(config) | {"root": ""} == {
        "root": "",
        "architecture": "resnet9",
        "size": 64,
        "epochs": 10,
        "positive_class": "crack",
    }
    request = from_sweep(config, here / "sweep.yaml")
    assert (request.goal.metric, request.goal.max_drop, request.devices) == ("recall", 0.03, ("board", "local"))
    task = loaded(request, None)
    assert task.metrics[0] == "recall" and task.example_input().shape == (1, 3, 64, 64)
    assert capsys.readouterr().out.splitlines() == ["Wrote sweep.yaml", "Next: prunefleet check sweep.yaml"]


@pytest.mark.parametrize(("data", "out", "root"), [(None, "../sweep.yaml", "parts"), ("..", "sweep.yaml", "parts")])
def test_the_folder_is_named_so_that_other_hosts_find_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, data: str | None, out: str, root: str
) -> None:
    """Beside the sweep file, or below PRUNEFLEET_DATA, by its short name."""
    if data:
        monkeypatch.setenv("PRUNEFLEET_DATA", str((here / data).resolve()))
    assert main([*PICTURES[:3], "--data", str(here.parent / "parts"), "--out", out]) == 0
    assert options(read_sweep_file(here / out))["root"] == root


def test_a_name_that_would_lead_elsewhere_is_written_in_full(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the same name beside the sweep file would be taken for the one below PRUNEFLEET_DATA."""
    folders(here / "parts", 8)
    monkeypatch.setenv("PRUNEFLEET_DATA", str(here.parent))
    assert main(["init", "--network", "resnet9", "--data", str(here.parent / "parts")]) == 0
    assert options(read_sweep_file(here / "sweep.yaml"))["root"] == str(here.parent / "parts")


@pytest.mark.parametrize(("name", "size"), [("resnet9", 64), ("timm/vit_tiny_patch16_224", 224)])
def test_a_network_gets_a_size_that_it_takes(name: str, size: int) -> None:
    """64 pixels, unless the network is tied to another."""
    pytest.importorskip("timm")
    assert command._size_for(name, 2) == size


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--network", "resnt18"], "--network: got 'resnt18'; did you mean resnet18 or"),
        (["--network", "resnet_9"], "--network: got 'resnet_9'; did you mean resnet9 or"),
        (["--network", "a b:C"], "--network: got 'a b:C'; write MODULE:CLASS with names of Python's"),
        (["--network", "a:class"], "--network: got 'a:class'; write MODULE:CLASS"),
        (["--network", "a:"], "--network: got 'a:'; write MODULE:CLASS"),
        (["--network", "a:Images"], "give the class another name: the skeleton imports Images"),
        (["--network", "random:Task"], "--network: got 'random:Task'; name another module: Python finds its random in"),
        (["--network", "torch.mine:Task"], "name another module: Python finds its torch in"),
        (["--data", "nowhere"], "--data: got 'nowhere'; no such folder here, and PRUNEFLEET_DATA is not set"),
        (["--data", "/nowhere"], "--data: got '/nowhere'; no such folder here: name one that is there"),
        (["--data", "."], "--data: got"),
        (["--metric", "iou"], "--metric: got 'iou'; use one of top1, top5, balanced_accuracy, recall, precision, f1"),
        (["--metric", "balanced"], "--metric: got 'balanced'; did you mean 'balanced_accuracy'?"),
        (["--metric", "recall", "--positive-class", "crac"], "--positive-class: got 'crac'; did you mean 'crack'?"),
        (["--max-drop", "2%"], "--max-drop: got '2%'; write 0.02"),
        (["--max-drop", "2"], "--max-drop: got '2'; give a fraction below 1; 0.01 is one point"),
        (["--max-drop", "nan"], "--max-drop: got 'nan'; give a finite number"),
        (["--max-drop", "few"], "--max-drop: got 'few'; give a fraction such as 0.01"),
        (["--device", "cuda"], "--device: got 'cuda'; give local; what runs networks here is measure.runner"),
        (["--device", "a b"], "--device: got 'a b'; give a name of letters"),
        (["--out", "."], "--out: got '.'; give the name of a file, such as sweep.yaml"),
        (["--out", "../parts/crack/000.png/x.yaml"], "--out: got '../parts/crack/000.png/x.yaml'; give a place"),
    ],
)
def test_what_cannot_be_right_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    """It names the flag, the value and the remedy; nothing is written."""
    assert main([*PICTURES, *flags]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1
    assert list(here.iterdir()) == []


def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the file and the remedy; neither file of a pair is written where the other is there."""
    (here / "sweep.yaml").write_text("mine")
    assert main([*PICTURES]) == 2 and main(["init", "--network", f"{next(modules)}:Mine"]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line == (
            "prunefleet: --out: got 'sweep.yaml'; it is there and is not overwritten: move it, or give another name"
        )
    assert [path.name for path in here.iterdir()] == ["sweep.yaml"] and (here / "sweep.yaml").read_text() == "mine"


def test_a_task_that_is_there_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its class it is used as it is; without, the line says so."""
    name = next(modules)
    (here / f"{name}.py").write_text("class Mine: ...\n")
    assert main(["init", "--network", f"{name}:Other"]) == 2
    assert f"{name}.py has no Other: add the class there, or name another module" in capsys.readouterr().err
    assert main(["init", "--network", f"{name}:Mine"]) == 0
    assert f"Left {name}.py as it is" in capsys.readouterr().out
    assert (here / f"{name}.py").read_text() == "class Mine: ...\n"


@pytest.mark.parametrize(
    ("metric", "root"), [("top3", []), ("f1", ["--data", "../parts"]), ("miou", []), ("miou", ["--data", "../parts"])]
)
def test_a_skeleton_is_a_task(here: Path, metric: str, root: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It loads by the sweep file's own words, has groups, trains a step, and gives its metric on every split."""
    module = f"{next(modules)}.deeper"
    assert main(["init", "--network", f"{module}:Mine", "--metric", metric, *root]) == 0
    assert f"Wrote {module.replace('.', '/')}.py: a task that runs as it is" in capsys.readouterr().out
    config = read_sweep_file(here / "sweep.yaml")
    request = from_sweep(config, here / "sweep.yaml")
    task = load_task(request.task, request.options)
    assert isinstance(task, Task) and request.goal.metric == metric and task.metrics == (metric,)
    network = task.network()
    assert find_groups(network, task.example_input()) and len(task_hash(task)) == 64
    task.fit(network, Budget(0.1), lambda row: True)
    for split in ("validation", "holdout", "test"):
        assert 0 <= task.evaluate(network, split, 50)[metric] <= 1
    assert hasattr(task, "root") == bool(root)


def test_what_is_missing_is_asked_on_a_terminal(here: Path, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each thing until it can be right, an empty answer is the default, and a flag that was given is not asked."""
    asked = answer("resnet99x", "resnet9", "../nowhere", "../parts", "recall", "crack", "", "")
    assert main(["init", "--device", "local"]) == 0
    assert [text.split()[0] for text in asked] == [
        *("Network:", "Network:", "Folder", "Folder", "Metric", "Class", "How", "File"),
    ]
    assert asked[-2:] == [
        "How much of it may be lost, as a fraction: 0.01 is one point [0.01]: ",
        "File to write [sweep.yaml]: ",
    ]
    config = read_sweep_file(here / "sweep.yaml")
    assert config["parameters"]["objective"]["parameters"]["max_drop"] == {"value": 0.01}
    assert "--data: got '../nowhere'" in capsys.readouterr().out


def test_a_network_of_ones_own_needs_no_data(here: Path, answer: Answer) -> None:
    """The folder is asked for and may be left out."""
    name = next(modules)
    answer(f"{name}:Mine", "", "", "", "", "")
    assert main(["init"]) == 0
    assert "options" not in read_sweep_file(here / "sweep.yaml")["parameters"] and (here / f"{name}.py").is_file()


def test_an_end_of_input_ends_it(here: Path, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-D while it asks is Ctrl-C: one line, 130, and no file."""
    answer("resnet9")
    assert main(["init"]) == 130
    assert capsys.readouterr().err == "prunefleet: stopped by Ctrl-C\n" and list(here.iterdir()) == []


def test_what_cannot_be_written_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task that was written goes again where the sweep file then cannot be."""
    name = next(modules)
    start = Start(here / "a" / "s.yaml", TaskName(name, "Mine"), "top1", 0.01, ("local",))
    files = {here / f"{name}.py": "one", here / f"{name}.py" / "s.yaml": starting_files.sweep_file(start)}
    with pytest.raises(ValueError, match="give a place that can be written to"):
        command._write(files)
    assert list(here.iterdir()) == []


def test_the_metrics_are_those_of_the_tasks() -> None:
    """The command line knows them without loading torch; here both are."""
    assert tuple(OF_POSITIVE) == starting_files.OF_A_CLASS
    assert (*Labelled.metrics, *OF_POSITIVE) == starting_files.IMAGE_METRICS


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@settings(max_examples=25)
@given(TEXT, TEXT, st.floats(0, 0.99), st.booleans())
def test_whatever_folders_and_classes_are_called_the_file_says_it(
    root: str, positive: str, drop: float, own: bool
) -> None:
    """Quotes, colons, braces and other signs come back from YAML as they were, in a file that is valid."""
    named = {"root": root} if own else {"root": root, "architecture": "resnet9", "positive_class": positive}
    task = TaskName("a.b", "Mine") if own else None
    text = starting_files.sweep_file(Start(Path("s.yaml"), task, "recall", drop, ("local",), **named))  # type: ignore[arg-type]
    config = yaml.safe_load(text)
    validate(config)
    assert {name: options(config)[name] for name in named} == named
    assert config["parameters"]["objective"]["parameters"]["max_drop"] == {"value": drop}
    assert config["parameters"]["task"] == {"value": "a.b:Mine" if own else "image_folder"}
