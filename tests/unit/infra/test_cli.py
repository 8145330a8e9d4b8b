"""The command line: what it accepts, and how bad input ends."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from prunefleet.agent.__main__ import main as agent_main
from prunefleet.infra.cli import AGENT_COMMANDS, main
from prunefleet.infra.fleet.joining import keyfile
from prunefleet.infra.settings import BY_NAME, Setting
from prunefleet.objective.errors import BadInput

from support.paths import ROOT


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`prunefleet` alone tells the commands and ends with 2."""
    assert main([]) == 2
    assert "hub" in capsys.readouterr().out


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends with 0 at once."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`prunefleet --version` prints one line: name and version."""
    assert shown(["--version"], capsys) == f"prunefleet {version('prunefleet')}\n"


@pytest.mark.parametrize("command", [[], ["up"], ["hub"], ["hub", "users"], ["help"]])
def test_help_is_a_command_too(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`prunefleet help COMMAND` prints what `prunefleet COMMAND --help` does."""
    told = shown(["help", *command], capsys)
    assert told == shown([*command, "--help"], capsys)
    assert told.startswith(" ".join(["usage: prunefleet", *command]))


@pytest.mark.parametrize("command", AGENT_COMMANDS)
def test_the_agents_room_tells_its_own_help(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a command of the agent's room the process becomes that command with --help."""
    begun: list[list[str]] = []

    def execute(program: str, words: list[str]) -> None:
        begun.append(words)
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execute)
    with pytest.raises(SystemExit):
        main(["help", command])
    assert begun[0][-2:] == [command, "--help"]


def test_help_of_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command ends with 2 and the list of commands."""
    with pytest.raises(SystemExit) as ended:
        main(["help", "upp"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'upp'" in told and "'up'" in told


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["up", "nowhere.yaml"], "sweep file: got 'nowhere.yaml'"),
        (["up", "--agents", "0"], "--agents: got 0; give at least 1"),
        (["up", "--agents", "two"], "--agents: got 'two'; give a whole number"),
        (["up", "--port", "80800"], "--port: got 80800"),
        (["agents", "kill", "x"], "agents: got 'kill'; use one of list, pause, resume, drain, stop"),
        (["agents", "pause"], "agents pause: got ''; give the name of an AGENT, or its host"),
        (["device", "remove", "x"], "device: got 'remove'; use one of list, add"),
        (["device", "add"], "device add: got ''; give NAME"),
        (["device", "add", "local"], "NAME: got 'local'; name it otherwise"),
        (["hub", "--port", "x"], "--port: got 'x'; give a whole number"),
    ],
)
def test_bad_options_end_in_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad option ends with 2 and one line that names it, the value and the remedy."""
    assert main(words) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_variable_stands_for_an_option() -> None:
    """An environment variable gives a setting's value, and a wrong one is named."""
    assert BY_NAME["agents"].initial({"PRUNEFLEET_AGENTS": "3"}) == 3
    assert BY_NAME["agents"].initial({}) == 2
    with pytest.raises(BadInput, match="PRUNEFLEET_AGENTS: got 'many'"):
        BY_NAME["agents"].initial({"PRUNEFLEET_AGENTS": "many"})


def test_flags_are_made_from_names() -> None:
    """A setting's option is its name with dashes unless it says another."""
    assert Setting("ready_file", None, "").flag == "--ready-file"
    assert BY_NAME["hub_data"].flag == "--data"


def _press(*_: object, **__: object) -> int:
    raise KeyboardInterrupt


def test_ctrl_c_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a command is stopped: 130, and no traceback; of commands of this host likewise."""
    monkeypatch.setattr("prunefleet.infra.fleet.joining.keep.keep", _press)
    assert main(["agent", "e/p/s"]) == 130
    assert capsys.readouterr().err == "prunefleet: stopped by Ctrl-C\n"
    monkeypatch.setattr("prunefleet.agent.__main__._doctor", _press)
    assert agent_main(["doctor"]) == 130
    assert capsys.readouterr().err == "prunefleet: stopped by Ctrl-C\n"


def test_ctrl_c_after_the_token_is_spent_says_how_joining_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key is kept, and the line that takes it up again is told."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_BASE_URL", "WANDB_API_KEY", "PRUNEFLEET_JOIN_TOKEN"):
        monkeypatch.setenv(name, "")  # what joining sets is undone with these
    granted = {"api_key": "k" * 40, "username": "me", "sweep": "me/lab/s1", "extra": "measure"}
    monkeypatch.setattr("prunefleet.infra.fleet.hub_calls.exchange", lambda *_: granted)
    monkeypatch.setattr("prunefleet.infra.fleet.joining.host_join._look", lambda *_: None)
    monkeypatch.setattr("prunefleet.infra.fleet.joining.host_join.sweep_config", _press)
    assert main(["join", "http://192.0.2.1:8765", "--token", "join-1", "--name", "board"]) == 130
    told = capsys.readouterr().err
    assert told == (
        "prunefleet: stopped by Ctrl-C; the key is kept: "
        "`prunefleet join http://192.0.2.1:8765 me/lab/s1 --name board` goes on\n"
    )
    found = keyfile.find("board")
    assert found is not None and found.api_key == "k" * 40


HEAVY = ("torch", "wandb", "starlette", "sqlalchemy")


def test_importing_the_command_line_is_light() -> None:
    """`prunefleet --help` loads neither torch nor wandb nor the server."""
    code = f"import sys, prunefleet.infra.cli; print([m for m in {HEAVY} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"
