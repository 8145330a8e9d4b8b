"""Trials as the product runs them: pruned evenly and by sensitivity, at each precision; docs/results/trials.*.

It takes hours on two cores, may be ended at any time, and goes on where it was: what is done is in PRUNEFLEET_CACHE.
Training may run beside other work; the measurements want a quiet host for some minutes. `-k trained` and `-k measured`
run one pass alone. `TRIALS_BENCH_SHORT=1` tries the bench itself on a tiny network, whose figures are not kept.
"""

import os

import pytest

from studies.trials.passes import LONG, measure, train
from studies.trials.report import keep
from studies.trials.study import NETWORKS

pytestmark = [pytest.mark.bench, pytest.mark.timeout(6 * 3600)]
SHORT = bool(os.environ.get("TRIALS_BENCH_SHORT"))
TRIED = ["tiny"] if SHORT else ["demo", pytest.param("elpv", marks=pytest.mark.elpv)]
LONGER = [name for name in ("tiny", "demo") if (name == "tiny") == SHORT and NETWORKS[name].longer]


@pytest.mark.parametrize("network", TRIED)
def test_candidates_are_trained(network: str) -> None:
    """Each candidate is pruned, trained with each seed, and judged at each precision that this host has."""
    train(network)
    keep(network, not SHORT)


@pytest.mark.parametrize("network", TRIED)
def test_latencies_are_measured(network: str) -> None:
    """The candidates of each seed that is trained are measured together with the dense network."""
    measure(network, seconds=2.0 if SHORT else 20.0)
    keep(network, not SHORT)


@pytest.mark.parametrize("network", LONGER)
def test_candidates_are_trained_for_longer(network: str) -> None:
    """The same candidates are trained for several times as long: do they keep their ranks?"""
    train(network, LONG)
    keep(network, not SHORT)
