"""Pictures from folders, from torchvision and from ELPV: how they are divided, decoded, kept, and refused."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunefleet.agent.measure.runners.base import OpenVINORunner
from prunefleet.agent.tasks.data import pictures
from prunefleet.agent.tasks.data.pictures import PictureFormat, squared
from prunefleet.agent.tasks.ready import elpv
from prunefleet.agent.tasks.ready.elpv import ELPV
from prunefleet.agent.tasks.ready.image_folder import ImageFolder
from prunefleet.agent.tasks.ready.torchvision_set import SETS, TorchvisionSet
from prunefleet.agent.tasks.registry import load_task
from prunefleet.agent.tasks.task import SPLITS, data_hash
from prunefleet.agent.trial.network import check_network
from prunefleet.objective.errors import BadInput

from support import pictures as support_pictures

ALL = ("train", *SPLITS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PRUNEFLEET_DATA", raising=False)


def _folder(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(root=str(root), **{"architecture": "resnet9", "size": 16, **options})


def test_a_single_tree_is_divided_alike_everywhere(tmp_path: Path) -> None:
    """root/class/*.png becomes four parts with all classes, the same on a host with a copy elsewhere."""
    root = support_pictures.folders(tmp_path / "parts", 20)
    task = _folder(root)
    assert {name: len(images.labels) for name, images in task.images.items()} == dict(
        zip(ALL, (26, 4, 4, 6), strict=True)
    )
    assert all(set(images.labels.tolist()) == {0, 1} for images in task.images.values())
    shutil.copytree(root, tmp_path / "elsewhere" / "parts", copy_function=shutil.copyfile)
    other = _folder(tmp_path / "elsewhere" / "parts")
    assert data_hash(other) == data_hash(task) and other.name == task.name == "folder_parts_resnet9_16"
    assert all(torch.equal(task.images[part].pixels, other.images[part].pixels) for part in ALL)
    assert task.example_input().shape == (1, 3, 16, 16) and task.network()(task.example_input()).shape == (1, 2)


def test_given_parts_stay_what_they_are(tmp_path: Path) -> None:
    """Of train, val and test, val gives validation and holdout; without val they come from train; none is lost."""
    for part, count in (("train", 20), ("val", 8), ("test", 6)):
        support_pictures.folders(tmp_path / "three" / part, count)
    names = {
        part: {entry.name.split("/")[0] for entry in own} for part, own in _folder(tmp_path / "three").entries.items()
    }
    assert names == {"train": {"train"}, "validation": {"val"}, "holdout": {"val"}, "test": {"test"}}
    shutil.rmtree(tmp_path / "three" / "val")
    entries = _folder(tmp_path / "three").entries
    assert {part: len(own) for part, own in entries.items()} == {"train": 32, "validation": 4, "holdout": 4, "test": 12}
    assert len({entry.name for own in entries.values() for entry in own}) == 52


def test_other_pictures_are_other_data(tmp_path: Path) -> None:
    """A changed picture changes the hash, and is decoded anew."""
    root = support_pictures.folders(tmp_path / "parts", 6)
    before, first = data_hash(_folder(root)), _folder(root).images["train"].pixels.clone()
    for file in root.glob("crack/*.png"):
        Image.new("RGB", (30, 24), (255, 0, 0)).save(file)
    assert data_hash(_folder(root)) != before
    assert not torch.equal(_folder(root).images["train"].pixels, first)
    assert data_hash(_folder(root, size=24)) != data_hash(_folder(root)) != data_hash(_folder(root, limit=4))


def test_a_positive_class_has_metrics_of_its_own(tmp_path: Path) -> None:
    """With a positive class there are recall, precision and F1 of it; without one there are not."""
    root = support_pictures.folders(tmp_path / "parts")
    task = _folder(root, positive_class="crack")
    assert task.metrics[:3] == ("recall", "precision", "f1") and task.positive == 0
    assert set(task.evaluate(task.network(), "test")) == set(task.metrics)
    assert "recall" not in _folder(root).metrics
    with pytest.raises(BadInput, match="positive_class: got 'bad'; name one of crack, good"):
        _ = _folder(root, positive_class="bad").classes


def test_pictures_are_decoded_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second task finds the decoded pictures in the cache, and one that a killed process left half is made again."""
    root = support_pictures.folders(tmp_path / "parts")
    first = _folder(root).images
    monkeypatch.setattr(pictures, "read", lambda path: pytest.fail(f"{path} was read again"))
    assert all(torch.equal(first[part].pixels, each.pixels) for part, each in _folder(root).images.items())
    assert [path.suffix for path in (tmp_path / "cache" / "pictures").iterdir() if path.is_dir()] == [""]


def test_a_set_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """The line says how large the decoded pictures would be, and which option allows them."""
    root = support_pictures.folders(tmp_path / "parts")
    with pytest.raises(BadInput, match=r"got '1\.84e-05 GB of decoded pictures'; the limit is 1e-05 GB.*limit_gb"):
        _ = _folder(root, limit_gb=1e-5).images
    assert not list((tmp_path / "cache" / "pictures").glob("*/*.npy"))


def _missing_class(root: Path) -> None:
    for part in ("train", "test"):
        support_pictures.folders(root / part)
    shutil.rmtree(root / "test" / "good")


def _further_class(root: Path) -> None:
    for part in ("train", "test"):
        support_pictures.folders(root / part)
    support_pictures.folders(root / "test", classes=("bent",))


def _empty_class(root: Path) -> None:
    support_pictures.folders(root)
    (root / "bent").mkdir()


def _no_train(root: Path) -> None:
    support_pictures.folders(root / "test")


def _corrupt(root: Path) -> None:
    support_pictures.folders(root)
    content = (root / "good" / "003.png").read_bytes()
    (root / "good" / "003.png").write_bytes(content[: len(content) // 2])


def _no_picture(root: Path) -> None:
    support_pictures.folders(root)
    (root / "good" / "003.png").write_text("hello")


def _dangling(root: Path) -> None:
    support_pictures.folders(root)
    (root / "good" / "999.png").symlink_to(root / "nowhere.png")


def _deep(root: Path) -> None:
    support_pictures.folders(root)
    Image.fromarray(np.zeros((9, 9), np.float32)).save(root / "good" / "deep.tiff")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "options.root: got.*no such folder here: name one that is there"),
        (lambda root: support_pictures.folders(root, classes=("good",)), "two classes or more.*there are 1"),
        (lambda root: support_pictures.folders(root, 3), "3 pictures of class crack.*give at least 4"),
        (_missing_class, "test/good.*same classes: good is missing here"),
        (_further_class, "test/bent.*bent is no class of the training part"),
        (_empty_class, "bent.*put pictures there"),
        (_no_train, "put a folder train beside test"),
        (_corrupt, "003.png.*replace or remove this picture, it cannot be read"),
        (_no_picture, "003.png.*replace or remove this picture, it cannot be read"),
        (_dangling, "999.png.*replace or remove this picture: No such file"),
        (_deep, "deep.tiff.*save this picture with 8 or 16 bits"),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path: Path, make: Any, words: str) -> None:
    """What is missing, damaged or does not fit is named with path and remedy, and nothing stays in the cache."""
    make(tmp_path / "parts")
    with pytest.raises(BadInput, match=words) as told:
        _ = _folder(tmp_path / "parts").images
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "cache" / "pictures").glob("*/*.npy"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 4}, "options.size: got 4"),
        ({"channels": 2}, "options.channels: got 2"),
        ({"lr": 0}, "options.lr: got 0"),
        ({"epochs": -1}, "options.epochs: got -1"),
        ({"batch_size": 1}, "options.batch_size: got 1"),
        ({"limit": 0}, "options.limit: got 0"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """An option out of range is named with what would be right."""
    with pytest.raises(BadInput, match=words):
        _folder(tmp_path, **options)


def test_a_network_that_nobody_has_is_one_line(tmp_path: Path) -> None:
    """The line names the option and the value."""
    task = _folder(support_pictures.folders(tmp_path / "parts"), architecture="resnet19")
    with pytest.raises(BadInput, match=r"options\.architecture: got 'resnet19'"):
        task.network()


def test_relative_roots_are_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root by name is looked for in PRUNEFLEET_DATA, so that hosts may keep it in different places."""
    support_pictures.folders(tmp_path / "data" / "parts")
    monkeypatch.setenv("PRUNEFLEET_DATA", str(tmp_path / "data"))
    assert _folder(Path("parts")).classes == ("crack", "good")


def _edge(mode: str, size: tuple[int, int]) -> Image.Image:
    """Left half black, right half white, in a picture of `size`."""
    made = Image.new("L", size)
    made.paste(255, (size[0] // 2, 0, *size))
    if mode == "I;16":
        return Image.fromarray(np.asarray(made).astype(np.uint16) << 8)
    return made.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_becomes_square(mode: str, channels: int) -> None:
    """Grey, coloured, transparent, palette and 16-bit pictures keep their left dark and their right bright."""
    made = _edge("L", (40, 20)).convert("LA") if mode == "LA" else _edge(mode, (40, 20))
    pixels = squared(made, PictureFormat(10, channels))
    assert pixels.shape == (channels, 10, 10) and pixels.dtype == np.uint8
    assert pixels[:, :, :4].max() < 40 and pixels[:, :, 6:].min() > 215


def test_a_camera_that_was_turned_is_turned_back() -> None:
    """The orientation that a camera noted is obeyed."""
    made = _edge("L", (20, 20))
    made.getexif()[274] = 6  # shown turned by a quarter to the right: the dark left becomes the top
    pixels = squared(made, PictureFormat(10, 1))[0]
    assert pixels[:4].max() < 40 and pixels[6:].min() > 215


def test_a_set_of_torchvision_is_read_from_a_folder(tmp_path: Path) -> None:
    """Official test stays test, train is divided by class; labels and pictures belong together."""
    task = TorchvisionSet(
        dataset="MNIST", root=str(support_pictures.mnist(tmp_path)), architecture="resnet9", channels=1, size=28
    )
    sizes = {name: len(images.labels) for name, images in task.images.items()}
    assert sizes == {"train": 160, "validation": 20, "holdout": 20, "test": 60}
    assert len(task.classes) == 10 and task.network()(task.example_input()).shape == (1, 10)
    for images in task.images.values():
        assert (images.pixels.float().mean((1, 2, 3)) // 20 - images.labels).abs().max() <= 1
    other = TorchvisionSet(dataset="MNIST", root=str(tmp_path), architecture="resnet9", channels=1, size=28, limit=30)
    assert data_hash(other) != data_hash(task) == data_hash(task)


def test_a_set_that_is_not_there_is_downloaded_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the option nothing is fetched, and one line says where the files belong; all names are torchvision's."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: pytest.fail("it was downloaded"))
    with pytest.raises(BadInput, match=r"CIFAR10 in .*or set options.download to true \(.*\)") as told:
        _ = TorchvisionSet(dataset="CIFAR10", root=str(tmp_path), size=32).images
    assert "\n" not in str(told.value)
    asked: list[str] = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: asked.append(str(self.root)))
    with pytest.raises(BadInput, match="CIFAR10 in"):
        _ = TorchvisionSet(dataset="CIFAR10", size=32, download=True).images
    assert asked == [os.environ["PRUNEFLEET_CACHE"] + "/torchvision"]
    assert all(hasattr(datasets, name) for name in SETS)


def test_a_damaged_set_is_one_line(tmp_path: Path) -> None:
    """A file that torchvision cannot read ends in a line with the set and its folder."""
    root = support_pictures.mnist(tmp_path)
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(BadInput, match=r"MNIST in .*put the set's files there whole"):
        _ = TorchvisionSet(dataset="MNIST", root=str(root), channels=1, size=28).images


def _cells(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A package of made-up cells, found before the true one; its list."""
    file = support_pictures.elpv(folder / "site")
    monkeypatch.setattr(elpv, "labels_file", lambda: file)
    return file


def test_cells_are_folded_by_probability_and_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all folds every cell is tested once, each fold has its share of defects, and the licence is told at load."""
    _cells(monkeypatch, tmp_path)
    tasks = [ELPV(fold=fold, size=16, architecture="resnet9", weights=None) for fold in range(8)]
    for task in tasks:
        assert {part: len(images.labels) for part, images in task.images.items()} == dict(
            zip(("train", "validation", "holdout", "test"), (100, 20, 20, 20), strict=True)
        )
        assert all(0.3 <= images.labels.float().mean() <= 0.5 for images in task.images.values())
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().err
    assert len({data_hash(task) for task in tasks}) == 8
    tested = torch.cat([task.images["test"].pixels for task in tasks])
    assert len({bytes(row.numpy()) for row in tested}) == 160


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the line says how to install it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"data: got 'elpv'; install the pictures: pip install 'prunefleet\[elpv\]'"):
        elpv.labels_file()


def test_a_damaged_list_of_cells_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with other columns is named."""
    _cells(monkeypatch, tmp_path).write_text("images/cell0001.png 1.0\n")
    with pytest.raises(BadInput, match=r"labels\.csv.*list is damaged"):
        _ = ELPV().cells


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("image_folder", {"root": "somewhere"}),
        ("torchvision", {"dataset": "CIFAR10"}),
        ("elpv", {"fold": 2}),
    ],
)
def test_tasks_with_options_are_made_by_name(name: str, options: dict[str, Any]) -> None:
    """Making a task reads nothing: the data come later, in a stage of their own."""
    task = load_task(name, options)
    assert task.metrics and task.given_options == options  # type: ignore[attr-defined]


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    """With one that it takes: before pictures are decoded where the network is tied to it, else when it is run."""
    pytest.importorskip("timm")
    root = support_pictures.folders(tmp_path / "parts", 20)
    tied = _folder(root, architecture="timm/vit_tiny_patch16_224", size=64)
    with pytest.raises(BadInput, match=r"options\.size: got 64; vit_tiny_patch16_224 takes 224 × 224$"):
        tied.network()
    assert _folder(root, architecture="timm/vit_tiny_patch16_224", size=224).network()
    deep = _folder(root, architecture="squeezenet1_1", size=16)
    assert str(deep.wrong_size(deep.network())) == "options.size: got 16; squeezenet1_1 takes 32 × 32"
    with pytest.raises(BadInput, match=r"options\.size: got 16; squeezenet1_1 takes 32 × 32$"):
        check_network(deep, deep.network(), OpenVINORunner(), "f32")
    assert _folder(root, architecture="squeezenet1_1", size=64).wrong_size(deep.network()) is None


def test_a_folder_that_is_not_there_is_told_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the sweep file and in PRUNEFLEET_DATA, or that this is not set; network and classes say the same."""
    monkeypatch.chdir(tmp_path)
    task = load_task("image_folder", {"root": "digits"}, beside=tmp_path)
    unset = "set it to the folder that holds 'digits', or give a full path"
    for asked in (lambda: task.network(), lambda: task.example_input()):
        with pytest.raises(BadInput) as told:
            asked()
        assert str(told.value) == (
            f"options.root: got 'digits'; no such folder beside the sweep file, and PRUNEFLEET_DATA is not set: {unset}"
        )
    monkeypatch.setenv("PRUNEFLEET_DATA", "/data")
    with pytest.raises(BadInput, match="beside the sweep file or in PRUNEFLEET_DATA, /data: put it there"):
        task.network()


def test_a_folder_beside_the_sweep_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever the command was started; the task's hash is that of what the sweep file says."""
    for place, classes in (("sweeps", ("a", "b", "c")), ("data", ("d", "e"))):
        support_pictures.folders(tmp_path / place / "parts", 4, classes)
    monkeypatch.setenv("PRUNEFLEET_DATA", str(tmp_path / "data"))
    beside, below = (load_task("image_folder", {"root": "parts"}, beside=tmp_path / each) for each in ("sweeps", "x"))
    assert (beside.classes, below.classes) == (("a", "b", "c"), ("d", "e"))  # type: ignore[attr-defined]
    assert beside.given_options == below.given_options == {"root": "parts"}  # type: ignore[attr-defined]
    assert beside.name == below.name == "folder_parts_resnet18_64"
