"""A table of real trials to judge searches on, docs/results/table.*: hundreds of candidates trained, all of them timed.

Training takes hours, may run beside other work, may be ended at any time, and goes on where it was on any machine: rows
are in docs/results/table.jsonl as soon as they are known. Timing wants a quiet host for some minutes. `-k trained` and
`-k measured` run one pass alone; `TABLE_BENCH_SHORT=1` tries the bench itself on a tiny network.
"""

import os

import pytest
from support_table_passes import measure, train
from support_table_report import keep

pytestmark = [pytest.mark.bench, pytest.mark.timeout(12 * 3600)]
NETWORK = "tiny" if os.environ.get("TABLE_BENCH_SHORT") else "resnet20"


def test_candidates_are_trained() -> None:
    """Each candidate is pruned, fine-tuned and judged; some are with several seeds."""
    try:
        train(NETWORK)
    finally:
        keep(NETWORK)


def test_latencies_are_measured() -> None:
    """All candidates are timed on this host against the dense network."""
    measure(NETWORK)
    keep(NETWORK)
