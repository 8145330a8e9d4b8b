"""Module names of version 0.1: they lead to the same modules, in our processes alone, and a user's package wins."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from prunefleet.agent.measure.runners.command import VARIABLE, CommandRunner
from prunefleet.objective.old_names import NEW_NAMES, PACKAGES, new_name, translated, translated_words
from prunefleet.objective.sweepfile import read_sweep_file

SAME = """
from prunefleet.objective.old_names import install
install()
install()
import agent.tasks.task, agent.trial as trial, objective.profile
from agent import report
from agent.measure import lock
from agent.tasks.classification import Classification
from infra.controller.ask_tell import AskTell
import prunefleet.agent.measure.lock, prunefleet.agent.tasks.task, prunefleet.agent.trial.run
import prunefleet.agent.tracking.tracked_run, prunefleet.objective.profiles.profile
assert agent.tasks.task is prunefleet.agent.tasks.task
assert agent.tasks.task.__spec__.name == "prunefleet.agent.tasks.task"
assert trial is prunefleet.agent.trial.run and lock is prunefleet.agent.measure.lock
assert report is prunefleet.agent.tracking.tracked_run
assert objective.profile is prunefleet.objective.profiles.profile
try:
    import agent.no_such_module
except ModuleNotFoundError as error:
    print(error)
"""
OWN = """
from prunefleet.objective.old_names import install
install()
import sys
sys.path.append(sys.argv[1])
import agent.mine
from objective.errors import BadInput
print(agent.mine.WHOSE, BadInput.__module__, agent.__file__)
try:
    import agent.tasks.task
except ModuleNotFoundError as error:
    print(error)
"""

TOP = ("agent", "objective", "infra")
ASK = f"print(u.find_spec('agent'), [name for name in sys.modules if name.split('.')[0] in {TOP}])"


def run(code: str, folder: Path, *words: str) -> tuple[str, str]:
    """Standard output and error of a program that is started in `folder`, with nothing of it on its path."""
    argv = [sys.executable, "-P", "-c", code, *words]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_old_names_lead_to_the_same_modules(tmp_path: Path) -> None:
    """Whatever the form of the import, the module is the one object under its new name; it is told once."""
    said, told = run(SAME, tmp_path)
    assert said == "No module named 'agent.no_such_module'\n"
    line = "prunefleet: `agent` is a module name of version 0.1; it still works here: "
    assert told == f"{line}write `from prunefleet import …` in its place (docs/python.md)\n"


def test_a_user_s_own_package_wins(tmp_path: Path) -> None:
    """A package `agent` of the user's is theirs alone; a plain folder `objective` of data hides nothing."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("")
    (tmp_path / "agent" / "mine.py").write_text("WHOSE = 'mine'\n")
    (tmp_path / "objective").mkdir()
    said, told = run(OWN, tmp_path, str(tmp_path))
    first = f"mine prunefleet.objective.errors {tmp_path}/agent/__init__.py"
    assert said.splitlines() == [first, "No module named 'agent.tasks'"]
    assert "`objective.errors` is a module name" in told


def test_nothing_is_found_by_an_old_name_elsewhere(tmp_path: Path) -> None:
    """A process that is not ours, even one that imports this package, does not know the old names."""
    code = f"import sys, importlib.util as u, prunefleet.agent.__main__, prunefleet.infra.cli; {ASK}"
    assert run(code, tmp_path)[0] == "None []\n"


@pytest.mark.parametrize("old", [*NEW_NAMES, *PACKAGES])
def test_every_old_name_leads_somewhere(old: str) -> None:
    """The table names modules that exist."""
    assert importlib.util.find_spec(new_name(old)) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "python -m agent.measure.trtexec --onnx {onnx}",
            "python -m prunefleet.agent.measure.runners.trtexec --onnx {onnx}",
        ),
        ("ssh board python3  -u  -m  agent measure", "ssh board python3  -u  -m  prunefleet.agent measure"),
        ("sim -m agent --n 3", "sim -m agent --n 3"),
        ("python -m agent.mine --onnx {onnx}", "python -m agent.mine --onnx {onnx}"),
        ("python -m infra,agent -m", "python -m infra,agent -m"),
        ("agent python -m", "agent python -m"),
        ("python -m prunefleet.agent trial", "python -m prunefleet.agent trial"),
        ("python -m agents.agent -m my.agent agent.py", "python -m agents.agent -m my.agent agent.py"),
    ],
)
def test_commands_are_translated(old: str, new: str) -> None:
    """`-m` with an old name gets the new one; whatever else looks like it stays."""
    assert translated(old) == new
    assert translated_words(old.split()) == new.split()


THREADS = """
import importlib, sys, threading
from prunefleet.objective.old_names import install
install()
names = ["objective.space", "prunefleet.objective.profiles.space", "objective.goal", "prunefleet.objective.goals.goal"]
start = threading.Barrier(len(names))
def load(name):
    start.wait()
    importlib.import_module(name)
threads = [threading.Thread(target=load, args=(name,), daemon=True) for name in names]
for each in threads:
    each.start()
for each in threads:
    each.join(30)
print([each.is_alive() for each in threads])
"""


@pytest.mark.parametrize("turn", range(4))
def test_old_and_new_names_can_be_imported_at_once(tmp_path: Path, turn: int) -> None:
    """Threads that import a module by its old and its new name at the same moment all come to an end."""
    assert run(THREADS, tmp_path)[0] == "[False, False, False, False]\n"


@pytest.mark.parametrize("name", ["agent.answer", "infra.hub.runs", "agent.no_such_module"])
def test_a_room_that_is_new_has_no_old_name(tmp_path: Path, name: str) -> None:
    """A package of today that stands where version 0.1 had a module is not handed out as that module."""
    code = f"from prunefleet.objective.old_names import install; install(); import {name}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert f"No module named '{name}'" in done.stderr


def test_a_host_s_measuring_command_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """PRUNEFLEET_MEASURE_COMMAND as version 0.1 documented it still starts trtexec's wrapper."""
    monkeypatch.setenv(VARIABLE, "python -m agent.measure.trtexec --onnx {onnx} --calls {calls}")
    assert CommandRunner.of_host().command.startswith("python -m prunefleet.agent.measure.runners.trtexec --onnx")


def test_a_sweep_file_s_command_is_translated(tmp_path: Path) -> None:
    """A sweep file that starts trials by `python -m agent trial` plans a sweep whose agents find the module."""
    text = """program: prunefleet
command: ["${env}", python, -m, agent, trial]
method: bayes
metric: {name: score, goal: maximize}
parameters: {task: {value: fashion_mnist}}
"""
    (tmp_path / "sweep.yaml").write_text(text)
    assert read_sweep_file(tmp_path / "sweep.yaml")["command"] == [
        "${env}",
        "python",
        "-m",
        "prunefleet.agent",
        "trial",
    ]
