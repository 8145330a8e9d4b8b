"""`prunefleet cache`: what it shows, and what it leaves alone."""

from pathlib import Path

import pytest

from prunefleet.agent.__main__ import main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with something of every kind."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    for name in (
        "trials/train-1",
        "targets/t",
        "dense/d.safetensors",
        "dense/x/dense.xml",
        "profiles/p.jsonl",
        "pictures/p/x.npy",
        "set/x",
    ):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2**20)
    (tmp_path / "cache" / "dense" / "d.lock").touch()
    return tmp_path / "cache"


def test_show_tells_every_folder(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its size, its files and what it is for; what trials fill comes first, data last."""
    assert main(["cache"]) == 0
    first, *rows, total = capsys.readouterr().out.splitlines()
    assert str(cache) in first and "4096 MiB" in first
    assert [row.split()[:2] for row in rows] == [
        ["trials", "1.0"], ["targets", "1.0"], ["dense", "2.0"], ["profiles", "1.0"],
        ["pictures", "1.0"], ["set", "1.0"],
    ]  # fmt: skip
    assert rows[-1].endswith("data set") and total.split()[-2:] == ["7.0", "MiB"]


def test_clear_leaves_data_and_locks(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be made again goes; a data set goes only where that is said, a lock that may be held never."""
    assert main(["cache", "clear"]) == 0
    left = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    assert left == ["dense/d.lock", "set/x"]
    assert "6.0 MiB" in capsys.readouterr().out
    assert main(["cache", "clear", "--data"]) == 0
    assert not (cache / "set" / "x").exists() and (cache / "dense" / "d.lock").exists()


def test_show_removes_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--data` without `clear` is refused in one line."""
    assert main(["cache", "show", "--data"]) == 2
    assert "--data" in capsys.readouterr().err and (cache / "set" / "x").exists()


def test_an_empty_cache_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has done nothing yet has nothing to show."""
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "none"))
    assert main(["cache", "show"]) == 0 and main(["cache", "clear"]) == 0
