"""Which channels of a group matter, by each criterion and each way of ranking."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from prunefleet.agent.compress.groups import Group, find_groups
from prunefleet.agent.compress.importance import CRITERIA, saliency_of, scores
from prunefleet.agent.compress.prune import prune
from prunefleet.agent.tasks.gradients import backward_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import IMPORTANCES, RANKINGS, Candidate

from support.networks import Residual, SyntheticTask

IMAGE = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """A convolution of four filters, its norm, and the convolution that reads them."""

    def __init__(self, filters: list[float], scales: list[float], slices: list[float]) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 1, 1, bias=False), nn.Linear(64, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor(filters).view(4, 1, 1, 1))
            self.norm.weight.copy_(torch.tensor(scales))
            self.second.weight.copy_(torch.tensor(slices).view(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.second(torch.relu(self.norm(self.first(x)))).flatten(1))
        return logits


PAIR = Pair([1.0, -2.0, 3.0, 4.0], [0.5, 0.25, 1.0, 0.125], [8.0, -6.0, 0.5, 1.0])


def test_sweep_files_know_every_criterion() -> None:
    """The names that are accepted without torch are those of the table of criteria, in its order."""
    assert tuple(CRITERIA) == IMPORTANCES


def only(network: nn.Module) -> Group:
    (found,) = find_groups(network, IMAGE)
    return found


@pytest.mark.parametrize(
    ("importance", "ranking", "expected"),
    [
        ("l1", "filter", [1, 2, 3, 4]),
        ("l2", "filter", [1, 4, 9, 16]),
        ("l1", "channel", [8, 6, 0.5, 1]),
        ("l2", "channel", [64, 36, 0.25, 1]),
        ("l1", "group", [9.5, 8.25, 4.5, 5.125]),
        ("fpgm", "filter", [3 + 2 + 3, 3 + 5 + 6, 2 + 5 + 1, 3 + 6 + 1]),
        ("bn_scale", "group", [0.5, 0.25, 1, 0.125]),
        ("bn_scale", "filter", [0.5, 0.25, 1, 0.125]),
    ],
)
def test_criteria_by_hand(importance: str, ranking: str, expected: list[float]) -> None:
    """Filters are what writes a channel, slices what reads it, the group is both and the norm between."""
    assert scores(PAIR, only(PAIR), importance, ranking).tolist() == pytest.approx(expected)


def test_filter_and_channel_ranking_remove_different_channels() -> None:
    """The same layers shrink, but other channels go."""
    first = {way: prune(PAIR, IMAGE, [only(PAIR)], {"first": 2}, "l2", ranking=way).network.first for way in RANKINGS}
    kept = {way: layer.weight.flatten().tolist() for way, layer in first.items()}
    assert kept == {"group": [1.0, -2.0], "filter": [3.0, 4.0], "channel": [1.0, -2.0]}


def test_signs_matter_to_the_geometric_median() -> None:
    """Torch-Pruning compares squared weights, to which a filter and its opposite are the same."""
    network = Pair([1.0, -1.0, 1.1, 1.2], [1.0] * 4, [1.0] * 4)
    found = scores(network, only(network), "fpgm", "filter")
    assert found.argmax() == 1


def test_channels_of_a_flattened_layer_are_compared_as_one_row_each() -> None:
    """Behind a flattening FPGM compares channels, not pixels: a matrix of 4 × 4, not of 25,088 × 25,088."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(256, 2))
    found = scores(network, only(network), "fpgm", "channel")
    rows = network[2].weight.detach().view(2, 4, 64).transpose(0, 1).flatten(1)
    assert torch.allclose(found, torch.cdist(rows, rows).sum(1), atol=1e-5)


def test_channels_that_go_together_share_their_importance() -> None:
    """Behind a grouped convolution bundles are ranked, and the least goes whole."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(256, 2)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([9.0, 2.0, 1.0, 3.0]).view(4, 1, 1, 1))
    groups = find_groups(network, IMAGE)
    assert groups[0].tied == (0, 1, 0, 1)
    assert scores(network, groups[0], "l1", "filter").tolist() == [10, 5, 10, 5]
    kept = prune(network, IMAGE, groups, {"0": 2}, "l1", ranking="filter").network
    assert kept[0].weight.flatten().tolist() == [9.0, 1.0]


def backward_with(*batches: tuple[torch.Tensor, float]) -> Callable[[nn.Module], None]:
    """A loss that is the signed sum of the outputs, on each batch."""

    def run(network: nn.Module) -> None:
        for batch, sign in batches:
            network.zero_grad()
            (sign * network(batch).sum()).backward()

    return run


def test_taylor_adds_up_batches_so_that_opposite_gradients_do_not_cancel() -> None:
    """Torch-Pruning's Hessian overwrites what it should add; the sum of opposite gradients is nothing."""
    one = saliency_of(PAIR.eval(), "taylor", backward_with((IMAGE, 1.0)))
    two = saliency_of(PAIR.eval(), "taylor", backward_with((IMAGE, 1.0), (IMAGE, -1.0)))
    assert one and two and one["first.weight"].sum() > 0
    assert all(torch.allclose(two[name], 2 * one[name]) for name in one)


def test_taylor_keeps_the_channel_that_the_loss_depends_on() -> None:
    """A large filter whose output is ignored goes before a small one that matters."""
    network = Pair([5.0, 5.0, 0.1, 5.0], [1.0] * 4, [0.0, 0.0, 1.0, 0.0]).eval()
    with torch.no_grad():
        network.head.weight.fill_(1.0)
    backward = backward_with((IMAGE.abs(), 1.0))
    kept = prune(network, IMAGE, [only(network)], {"first": 1}, "taylor", backward=backward).network
    assert kept.first.weight.item() == pytest.approx(0.1)
    assert all(parameter.grad is None for parameter in itertools.chain(network.parameters(), kept.parameters()))


def test_taylor_goes_through_the_tasks_own_training() -> None:
    """The task's loss and batches give the gradients; the network given stays as it was."""
    task = SyntheticTask()
    network = task.network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = find_groups(network, task.example_input())
    kept = {group.name: group.width // 2 for group in groups}
    pruned = prune(network, task.example_input(), groups, kept, "taylor", backward=backward_of(task))
    assert pruned.kept == kept
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_gradients_stop_after_some_batches() -> None:
    """At the task's next report, so that a long epoch costs no more than a few batches."""
    passes = []

    class Long(SyntheticTask):
        def fit(self, network: nn.Module, budget: object, report: Callable[..., bool]) -> None:
            for step in itertools.count():
                network(self.images(8, step)[0]).sum().backward()
                passes.append(step)
                if not report({"epoch": step / 1000}):
                    return

    backward_of(Long(), batches=5)(Residual(8, (4,), classes=4))
    assert len(passes) == 5


def test_taylor_without_gradients_is_refused() -> None:
    """With nothing to make them, or where training makes none."""
    for backward in (None, lambda network: None):
        with pytest.raises(BadInput, match="importance: got 'taylor'"):
            prune(PAIR, IMAGE, [only(PAIR)], {"first": 2}, "taylor", backward=backward)


def test_a_group_without_norms_cannot_be_ranked_by_them() -> None:
    """Torch-Pruning leaves such a group whole without a word; here it is named."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(256, 2))
    with pytest.raises(BadInput, match="importance: got 'bn_scale'; choose l2: the group 0 has no norm"):
        prune(network, IMAGE, find_groups(network, IMAGE), {"0": 2}, "bn_scale")


@pytest.mark.parametrize(("importance", "ranking"), itertools.product(IMPORTANCES, RANKINGS))
def test_every_criterion_ranks_every_kind_of_layer(importance: str, ranking: str) -> None:
    """Dense, depthwise, grouped, transposed and linear layers, with exactly the channels asked for."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 12, 2), nn.BatchNorm2d(12), nn.Conv2d(12, 12, 1, groups=3), nn.GroupNorm(3, 12),
        nn.Flatten(), nn.Linear(300, 10), nn.LayerNorm(10), nn.Linear(10, 2),
    )  # fmt: skip
    groups = find_groups(network, IMAGE)
    kept = {group.name: group.width // group.multiple // 2 * group.multiple or group.multiple for group in groups}
    backward = backward_with((IMAGE, 1.0))
    pruned = prune(network.eval(), IMAGE, groups, kept, importance, ranking=ranking, backward=backward)
    assert pruned.kept == kept
    assert pruned.network(IMAGE).shape == (1, 2)


@pytest.mark.parametrize("key", ["importance", "ranking"])
def test_a_candidate_with_an_unknown_way_is_refused(key: str) -> None:
    """By the key of the sweep file, with the ways there are."""
    known = {"importance": IMPORTANCES, "ranking": RANKINGS}[key]
    with pytest.raises(BadInput, match=f"recipe.{key}: got 'hessian'; choose one of {', '.join(known)}"):
        Candidate({}, **{key: "hessian"})
