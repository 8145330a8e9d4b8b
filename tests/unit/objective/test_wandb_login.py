"""Server and key, found where the wandb client finds them."""

from pathlib import Path

import pytest
import wandb

from prunefleet.objective.wandb_login import CLOUD, base_url, is_named, key_for

from support.login import signed_in, signed_out

KEY, OTHER = "n" * 40, "e" * 40


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working directory with nothing in them, and no variables."""
    signed_out(monkeypatch, tmp_path)
    return tmp_path


def login(home: Path, url: str, machine: str) -> None:
    """The files that `wandb login --host` writes."""
    signed_in(home, url, machine, KEY)


def test_without_anything_it_is_wandb_ai_without_a_key(home: Path) -> None:
    """Nobody has named a server."""
    assert (base_url(), key_for(CLOUD), is_named()) == (CLOUD, "", False)


@pytest.mark.parametrize("machine", ["192.0.2.1:8765", "192.0.2.1"])
def test_what_login_wrote_is_found(home: Path, machine: str) -> None:
    """The address from the settings, and its key, by host and port or as an older client had it."""
    login(home, "http://192.0.2.1:8765/", machine)
    assert (base_url(), key_for("http://192.0.2.1:8765"), is_named()) == ("http://192.0.2.1:8765", KEY, True)
    assert key_for("http://192.0.2.2:8765") == ""


def test_variables_come_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and key of the environment count before what is in files."""
    login(home, "http://192.0.2.1:8765", "192.0.2.1:8765")
    monkeypatch.setenv("WANDB_BASE_URL", "http://192.0.2.9")
    monkeypatch.setenv("WANDB_API_KEY", OTHER)
    assert (base_url(), key_for(base_url()), is_named()) == ("http://192.0.2.9", OTHER, True)


def test_the_folder_s_own_settings_come_before_the_user_s(home: Path) -> None:
    """As `wandb init` leaves them."""
    login(home, "http://192.0.2.1:8765", "192.0.2.1:8765")
    (home / "wandb").mkdir()
    (home / "wandb" / "settings").write_text("[default]\nbase_url = http://192.0.2.5\n")
    assert base_url() == "http://192.0.2.5"


@pytest.mark.parametrize("text", ["[default", "no section = 1", "\x00\xff", ""])
def test_files_that_cannot_be_read_are_passed_over(home: Path, text: str) -> None:
    """Broken settings and a broken netrc count as none."""
    login(home, "http://192.0.2.1", "192.0.2.1")
    (home / ".config" / "wandb" / "settings").write_text(text)
    (home / ".netrc").write_text(f"machine {text}\n  nonsense")
    assert (base_url(), key_for("http://192.0.2.1")) == (CLOUD, "")


def test_the_client_agrees(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are those of the client at hand: its own functions read the same server and key from them."""
    login(home, "http://192.0.2.1:8765", "192.0.2.1:8765")
    files = wandb.Settings(settings_system=str(home / ".config" / "wandb" / "settings"))
    files.update_from_system_settings()
    assert str(files.base_url).rstrip("/") == base_url()
    from wandb.sdk.lib import wbauth

    assert wbauth.read_netrc_auth(host=base_url()) == key_for(base_url())
