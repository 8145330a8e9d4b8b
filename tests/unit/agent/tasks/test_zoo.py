"""Networks by name, with weights from files."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunefleet.agent.tasks.networks import zoo
from prunefleet.agent.tasks.networks.zoo import classifier, names
from prunefleet.objective.errors import BadInput

SMALL = "torchvision/squeezenet1_1"
TIMM = "timm/mobilenetv4_conv_small"
IMAGE = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize("name", [SMALL, TIMM, "torchvision/mnasnet0_5"])
def test_classes_and_channels_are_as_asked(name: str) -> None:
    """In evaluation mode, with one output each."""
    network = classifier(name, classes=7, channels=1)
    assert not network.training
    assert network(IMAGE[:, :1]).shape == (1, 7)


def test_a_seed_gives_the_same_network_again() -> None:
    """On every call and every host, whatever torch's own generator does, which is left alone."""
    state = torch.get_rng_state()
    first, again, other = (classifier(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet18", "network: got 'resnet18'; write torchvision/NAME or timm/NAME"),
        ("keras/resnet18", "write torchvision/NAME or timm/NAME"),
        ("torchvision/resnet81", "did you mean resnet18"),
        ("torchvision/fasterrcnn_resnet50_fpn", "network: got 'torchvision/fasterrcnn_resnet50_fpn'"),
        ("timm/resnet81", "did you mean .*resnet18"),
        ("timm/", "write torchvision/NAME or timm/NAME"),
        (18, "network: got 18; write torchvision/NAME or timm/NAME"),
    ],
)
def test_an_unknown_name_is_refused(name: object, line: str) -> None:
    """With what is near it."""
    with pytest.raises(BadInput, match=line):
        classifier(name)  # type: ignore[arg-type]


def test_options_that_a_network_has_not_are_refused() -> None:
    """In one line that shows them."""
    with pytest.raises(BadInput, match=r"it cannot be made with .*'wide': 3"):
        classifier(SMALL, wide=3)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_all_classifiers_have_names(library: str) -> None:
    """Those that the issue of the zoo names, and many more."""
    known = set(names(library))
    assert len(known) > 50
    assert not {"fasterrcnn_resnet50_fpn", "fcn_resnet50"} & known


@pytest.mark.parametrize("name", [SMALL, TIMM])
def test_weights_come_from_a_file(name: str, tmp_path: Path) -> None:
    """From safetensors, and from a state dict of torch, bare or wrapped as training scripts do."""
    source = classifier(name, classes=5, seed=3).state_dict()
    save_file(source, tmp_path / "a.safetensors")
    torch.save(source, tmp_path / "b.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in source.items()}}, tmp_path / "c.pt")
    for file in tmp_path.iterdir():
        found = classifier(name, classes=5, weights=file).state_dict()
        assert all(torch.equal(source[key], found[key]) for key in source), file


@pytest.mark.parametrize("name", [SMALL, TIMM])
def test_weights_of_other_classes_and_channels_are_adapted(name: str, tmp_path: Path) -> None:
    """The head is new; grey images see the sum of the three colours' filters, and all else is as it was."""
    source = classifier(name, classes=5, seed=3)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    grey = classifier(name, classes=9, channels=1, weights=tmp_path / "a.safetensors")
    old, new = (next(each for each in net.modules() if isinstance(each, nn.Conv2d)) for net in (source, grey))
    assert torch.allclose(new.weight, old.weight.sum(1, keepdim=True))
    was, now = source.state_dict(), grey.state_dict()
    other = {key for key in was if was[key].shape != now[key].shape}
    assert 2 <= len(other) <= 3 and all(torch.equal(was[key], now[key]) for key in was.keys() - other)
    many = classifier(name, channels=5, classes=5, weights=tmp_path / "a.safetensors")
    assert many(torch.zeros(1, 5, 64, 64)).shape == (1, 5)


def test_auxiliary_heads_are_left_out(tmp_path: Path) -> None:
    """googlenet's published weights have them; the network has one output, in training too."""
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    save_file(whole.state_dict(), tmp_path / "a.safetensors")
    network = classifier("torchvision/googlenet", weights=tmp_path / "a.safetensors")
    assert torch.equal(network.fc.weight, whole.fc.weight)
    assert network.train()(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """With the first tensor that they lack, have too many, or have in another shape."""
    source = classifier(SMALL, classes=5).state_dict()
    for wrong, line in (
        ({key: value for key, value in source.items() if key != "features.0.bias"}, r"lack features.0.bias \(64,\)$"),
        ({**source, "more": torch.zeros(1)}, r"they have beyond it more \(1,\)$"),
        (classifier("torchvision/mnasnet0_5").state_dict(), r"lack features.0.weight \(64, 3, 3, 3\) \(and 49 more\)$"),
        ({**source, "features.0.bias": torch.zeros(3)}, r"features\.0\.bias has shape \(3,\), not \(64,\)"),
    ):
        save_file(wrong, tmp_path / "a.safetensors")
        with pytest.raises(BadInput, match=f"weights: got .*; give those of {SMALL}: .*{line}"):
            classifier(SMALL, classes=5, weights=tmp_path / "a.safetensors")


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_a_file_with_code_in_it_is_refused_unread(tmp_path: Path) -> None:
    """A pickle may run anything: only tensors are read."""
    torch.save({"weights": Evil()}, tmp_path / "a.pth")
    with pytest.raises(BadInput, match=r"weights: got .*save the network's state_dict\(\) alone"):
        classifier(SMALL, weights=tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(random.Random(0).randbytes(100))
    (tmp_path / "d.safetensors").write_bytes(b"no")
    (tmp_path / "e.pth").touch()
    for file in ("b.pth", "c.pth", "d.safetensors", "e.pth", "missing.pth", "missing.safetensors"):
        with pytest.raises(BadInput, match="weights: got"):
            classifier(SMALL, weights=tmp_path / file)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way out: a file."""

    def offline(self: object) -> dict[str, torch.Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(zoo._Torchvision, "state", offline)
    with pytest.raises(BadInput, match="weights: got 'hub'; torchvision/squeezenet1_1 cannot be had, give a file"):
        classifier(SMALL, weights="hub")


def test_weights_of_the_hub_are_loaded_and_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a file are."""
    source = classifier(SMALL, seed=5).state_dict()
    monkeypatch.setattr(zoo._Torchvision, "state", lambda self: source)
    network = classifier(SMALL, classes=3, weights="hub")
    assert torch.equal(network.state_dict()["features.0.weight"], source["features.0.weight"])


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a network of its own is refused with the line that installs it; torchvision's go on working."""
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"install it: pip install 'prunefleet\[zoo\]'"):
        classifier(TIMM)
    assert classifier(SMALL, classes=2)(IMAGE).shape == (1, 2)


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2"])
def test_a_new_head_is_no_louder_than_the_features(name: str, tmp_path: Path) -> None:
    """Two classes on trained weights start within the square root of the features, with no class preferred."""
    save_file(classifier(name, classes=10).state_dict(), tmp_path / "w.safetensors")
    network = classifier(name, classes=2, weights=str(tmp_path / "w.safetensors"))
    head = next(module for module in reversed(list(network.modules())) if isinstance(module, nn.Linear))
    assert 0 < head.weight.abs().max().item() <= head.in_features**-0.5 and not head.bias.any()
