"""Random small networks: whatever stands between two layers, pruning is right or the layers stay whole."""

import copy

import pytest
import torch

from prunefleet.agent.compress.arrange import pruned_copy_of
from prunefleet.agent.compress.groups import find_groups, survey
from prunefleet.objective.errors import BadInput

from support.random_networks import RandomNetwork, image
from support.zoo import difference, random_gone

BLOCK = 250
HERE = 150
"""Networks in `make test`; `make test-all` takes 5,000 in blocks."""


def silenced(network: torch.nn.Module, gone: dict[str, set[int]]) -> torch.nn.Module:
    """A copy in which the rows of these layers, and the norms right behind them, are zero; knows of no reader."""
    quiet = copy.deepcopy(network)
    for name, rows in gone.items():
        layer = quiet.get_submodule(name)
        kind, _, number = name.partition(".")
        norm = quiet.norms[int(number)] if kind == "layers" else None
        for each in (layer, norm):
            for parameter in each.parameters() if each is not None else ():
                parameter.data[sorted(rows)] = 0
    return quiet


def check(seed: int) -> None:
    network = RandomNetwork(seed, reorder_only=seed % 3 == 0).eval()
    try:
        found = survey(network, image()[:1])
    except BadInput as error:
        assert "nothing to prune" in error.remedy, seed
        return
    exact = [group for group in found.groups if group.proof == "silence"]
    gone = random_gone(exact, 0.5, seed=seed)
    smaller = pruned_copy_of(network, copy.deepcopy(network), exact, gone, image())
    rows: dict[str, set[int]] = {}
    for group in exact:
        for slot in group.slots:
            if slot.out and slot.layer in group.members:
                rows.setdefault(slot.layer, set()).update(slot.removed(gone[group.name]))
    assert difference(silenced(network, rows), smaller, image(seed + 1)) < 1e-4, seed
    if seed % 3 == 0:
        assert set(found.whole) <= {"head", *(f"branches.{at}" for at in range(3))}, (seed, found.whole)


@pytest.mark.parametrize("part", range(10))
def test_networks_drawn_at_random_are_pruned_right_or_left_whole(part: int) -> None:
    """Proven groups lose what is silent without them; what a reordering alone separates is pruned."""
    for seed in range(part * HERE // 10, (part + 1) * HERE // 10):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5000 // BLOCK))
def test_thousands_of_networks_drawn_at_random(block: int) -> None:
    """The same of 5,000 others."""
    for seed in range(1000 + block * BLOCK, 1000 + (block + 1) * BLOCK):
        check(seed)


def test_the_network_that_is_looked_at_stays_as_it_was() -> None:
    """Weights, buffers and mode."""
    network = RandomNetwork(3, reorder_only=False).train()
    before = copy.deepcopy(network.state_dict())
    find_groups(network, image()[:1])
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
