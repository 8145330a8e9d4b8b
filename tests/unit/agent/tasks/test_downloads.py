"""Where Fashion-MNIST comes from: order of sources, checksums, cache, and what is said when it cannot be had."""

import contextlib
import gzip
import hashlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.agent.tasks.data import downloads
from prunefleet.agent.tasks.ready.fashion_mnist import FashionMNIST
from prunefleet.objective.errors import BadInput

from support import idx as support_idx

TRAIN, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with made-up files that count as the true ones, a cache of its own, and no other source."""
    monkeypatch.delenv("PRUNEFLEET_DATA", raising=False)
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    support_idx.pretend(monkeypatch, tmp_path / "data")
    monkeypatch.setattr(downloads, "SOURCES", {})
    return tmp_path / "data"


def _source(folder: Path, asked: list[str], name: str = "source") -> object:
    @contextlib.contextmanager
    def source(_: Path) -> Iterator[Path]:
        asked.append(name)
        if not folder.exists():
            raise downloads.NotHere("nothing there")
        yield folder

    return source


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "fashion-mnist"])
def test_a_given_folder_comes_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, below: str
) -> None:
    """Files in PRUNEFLEET_DATA, packed or not, there or in a folder below, are read without asking another source."""
    support_idx.write(tmp_path / "mine" / below, packed)
    monkeypatch.setenv("PRUNEFLEET_DATA", str(tmp_path / "mine"))
    files = downloads.fashion_mnist()
    assert files[TRAIN].shape == (600, 28, 28) and files["t10k-labels-idx1-ubyte"].shape == (200,)
    assert not (tmp_path / "cache" / "fashion-mnist").exists()


def test_a_corrupt_given_file_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with another checksum, or no gzip file at all, gives one line with its path."""
    monkeypatch.setenv("PRUNEFLEET_DATA", str(data))
    (data / f"{TRAIN}.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01a"))
    with pytest.raises(BadInput, match=rf"{TRAIN}\.gz.*corrupt: SHA-256") as told:
        downloads.fashion_mnist()
    assert "\n" not in str(told.value)
    (data / f"{TRAIN}.gz").write_bytes(b"no gzip")
    with pytest.raises(BadInput, match="cannot be read"):
        downloads.fashion_mnist()


def test_a_missing_given_file_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given folder that lacks one of the files gives one line with the path where it should be."""
    monkeypatch.setenv("PRUNEFLEET_DATA", str(data))
    (data / f"{LABELS}.gz").unlink()
    with pytest.raises(BadInput, match=f"{LABELS}.*put this file"):
        downloads.fashion_mnist()
    monkeypatch.setenv("PRUNEFLEET_DATA", str(data / "nowhere"))
    with pytest.raises(BadInput, match="name a folder that exists"):
        downloads.fashion_mnist()


def test_sources_are_asked_in_order_and_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first source that has the data fills the cache; afterwards none is asked."""
    asked: list[str] = []
    found = {"a": _source(tmp_path / "no", asked, "a"), "b": _source(data, asked, "b"), "c": _source(data, asked, "c")}
    monkeypatch.setattr(downloads, "SOURCES", found)
    downloads.fashion_mnist()
    downloads.fashion_mnist()
    assert asked == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "cache" / "fashion-mnist").iterdir()) == sorted(downloads.SHA256)


def test_a_broken_cache_is_filled_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached file that was damaged is fetched again, not used and not complained of."""
    asked: list[str] = []
    monkeypatch.setattr(downloads, "SOURCES", {"source": _source(data, asked)})
    downloads.fashion_mnist()
    with (tmp_path / "cache" / "fashion-mnist" / TRAIN).open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert downloads.fashion_mnist()[TRAIN].shape == (600, 28, 28)
    assert len(asked) == 2


def test_processes_that_start_together_fetch_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several callers at the same time one fetches; all get the data."""
    asked: list[str] = []
    monkeypatch.setattr(downloads, "SOURCES", {"source": _source(data, asked)})
    got: list[int] = []
    callers = [threading.Thread(target=lambda: got.append(len(downloads.fashion_mnist()))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert got == [4] * 4 and len(asked) == 1


def test_no_source_is_one_line_that_says_what_to_do(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no source has the data, one line says what each answered and how to give the data; nothing is left."""
    monkeypatch.setattr(
        downloads, "SOURCES", {"one": _source(tmp_path / "no", []), "two": _source(tmp_path / "no", [])}
    )
    with pytest.raises(BadInput) as told:
        downloads.fashion_mnist()
    for word in ("dataset-fashion-mnist", "PRUNEFLEET_DATA", "one: nothing there", "two: nothing there"):
        assert word in str(told.value)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fashion-mnist.lock"]


def test_a_source_with_wrong_files_is_passed_over(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download with wrong content is not cached; the next source is asked."""
    support_idx.write(tmp_path / "bad")
    (tmp_path / "bad" / f"{TRAIN}.gz").write_bytes(gzip.compress(b"other"))
    asked: list[str] = []
    wrong, right = _source(tmp_path / "bad", asked, "wrong"), _source(data, asked, "right")
    monkeypatch.setattr(downloads, "SOURCES", {"wrong": wrong, "right": right})
    assert len(downloads.fashion_mnist()) == 4 and asked == ["wrong", "right"]


def test_splits_are_disjoint_and_the_same_every_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, validation and holdout divide the training part; test is the official one; a limit cuts each."""
    monkeypatch.setenv("PRUNEFLEET_DATA", str(data))
    splits, again = FashionMNIST().splits(), FashionMNIST().splits()
    assert {name: len(images.labels) for name, images in splits.items()} == {
        "train": 400,
        "validation": 100,
        "holdout": 100,
        "test": 200,
    }
    rows = [bytes(row.numpy()) for name in ("train", "validation", "holdout") for row in splits[name].pixels]
    assert len(set(rows)) == 600
    assert all((splits[name].pixels == again[name].pixels).all() for name in splits)
    assert len(FashionMNIST(limit=30).splits()["test"].labels) == 30
    assert FashionMNIST(limit=30).data_hash() != FashionMNIST().data_hash()


@pytest.mark.debian
def test_apt_needs_neither_root_nor_lists(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apt-get download` with empty lists fetches private ones, unpacks the package, and the data is there."""
    monkeypatch.setenv("APT_CONFIG", str(_repository(tmp_path, data)))
    monkeypatch.setattr(downloads, "SOURCES", {"apt-get download": downloads._apt})
    assert downloads.fashion_mnist()[TRAIN].shape == (600, 28, 28)


def _repository(tmp_path: Path, data: Path) -> Path:
    """A package repository in a folder with our package alone; returns apt's configuration for it."""
    tree, repository = tmp_path / "tree", tmp_path / "repository"
    (tree / "DEBIAN").mkdir(parents=True)
    repository.mkdir()
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\n"
    (tree / "DEBIAN" / "control").write_text(f"{control}Description: made up\n")
    installed = tree / downloads.DEBIAN.relative_to("/")
    installed.parent.mkdir(parents=True)
    data.rename(installed)
    package = repository / "dataset-fashion-mnist_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, package], check=True, capture_output=True)
    content = package.read_bytes()
    rest = f"Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    (repository / "Packages").write_text(f"{control}{rest}Description: made up\n")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    config = tmp_path / "apt.conf"
    lists = tmp_path / "empty"
    (lists / "partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": tmp_path / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": lists,
        "APT::Sandbox::User": "root",
    }
    config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return config
