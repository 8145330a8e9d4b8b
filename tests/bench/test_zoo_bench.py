"""What of each network of the zoo can be pruned, by which proof, and the seconds of it: to docs/results/zoo.*.

Half an hour on a slow core. `ZOO_BENCH=NAME,NAME` measures these networks anew and keeps the figures of the others.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from studies.zoo.study import LIMIT, keep, kept
from support.paths import TESTS
from support.zoo import ZOO

pytestmark = [pytest.mark.bench, pytest.mark.timeout(9000)]
CHOSEN = [name for name in os.environ.get("ZOO_BENCH", "").split(",") if name] or list(ZOO)


def test_the_zoo_is_proven_within_seconds() -> None:
    """Each network has groups, and their proof ends within four minutes."""
    found = {name: each for name, each in kept().items() if name in ZOO and name not in CHOSEN}
    for name in CHOSEN:
        found[name] = _measured(name)
        keep({each: found[each] for each in ZOO if each in found}, ZOO)
    assert all(each.get("groups") for each in found.values()), found


def _measured(name: str) -> dict[str, object]:
    """What a process of its own finds of one network; that it took too long."""
    command = [sys.executable, "-m", "studies.zoo.study", name]
    env = os.environ | {"PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"name": name, "side": ZOO[name], "limit": LIMIT}
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(done.stdout, flush=True)
    return answer
