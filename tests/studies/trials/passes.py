"""The passes of the bench of trials: candidates are chosen, trained and judged, then measured; each can be resumed."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.measure.benchmark import MeasurementSetup, compare_many
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.latency import DENSE_F32
from prunefleet.objective.errors import BadInput

from studies.trials.study import (
    CHOSEN,
    DENSE,
    NETWORKS,
    UNIFORM,
    WORK,
    Job,
    at,
    bench_of,
    choose,
    judge_dense,
    kept_model,
    precisions,
    work,
)
from support.side_by_side import side_by_side

CHOICE, SHORT, LONG, LATENCY = "choice", "short", "long", "latency"
SITTING_S = 20.0
NAMES = (*(f"uniform {ratio:g}" for ratio in UNIFORM), *(f"chosen {place}" for place in range(1, CHOSEN + 1)))


@contextmanager
def journal(network: str, part: str) -> Iterator[Journal]:
    """What was done of a part of the bench on this host, to go on with; another process waits."""
    with Journal(_file(network, part)) as found:
        yield found


def done(network: str, part: str) -> dict[str, Any]:
    """What was done of a part by now, whoever works on it."""
    whole = _file(network, part).read_bytes().rpartition(b"\n")[0] if _file(network, part).exists() else b""
    return {entry["key"]: entry["value"] for entry in map(json.loads, whole.splitlines())}


def _file(network: str, part: str) -> Path:
    return cache_folder() / WORK / f"{network}-{part}.jsonl"


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def choice(network: str) -> dict[str, Any]:
    """The candidates of a network, chosen once."""
    if CHOICE not in done(network, CHOICE):
        with journal(network, CHOICE) as known:
            if CHOICE not in known:
                known.add(CHOICE, choose(network, lambda i, n, text: say(f"{network} profile {i}/{n} {text}")))
    found: dict[str, Any] = done(network, CHOICE)[CHOICE]
    return found


def jobs(network: str, kept: Mapping[str, Mapping[str, int]], part: str = SHORT) -> list[Job]:
    """What is to be trained: each candidate with each seed by the sweep's recipe, or with the first one for longer."""
    setting, epochs = NETWORKS[network], NETWORKS[network].request().candidate.epochs
    if part == LONG:
        whole, seeds, able = epochs * (setting.longer or 0), setting.seeds[:1], ("f32",)
    else:
        whole, seeds, able = epochs, setting.seeds, precisions()[0]
    return [Job(network, name, each, seed, whole, able) for seed in seeds for name, each in kept.items()]


def train(network: str, part: str = SHORT) -> None:
    """Train and judge what is not done yet, some at a time."""
    chosen = choice(network)
    _same(network, chosen["profile"]["baseline_hash"])
    with journal(network, part) as known:
        if part == SHORT and DENSE not in known:
            known.add(DENSE, judge_dense(network, precisions()[0]))
        todo = [job for job in jobs(network, chosen["kept"], part) if job.key not in known]
        say(f"{network} {part}: {len(todo)} to train")
        for job, found in _worked(todo, chosen["latency"]):
            known.add(job.key, found)
            metric = bench_of(network).goal.metric
            shown = {name: round(each["quality"]["holdout"][metric], 4) for name, each in found["precisions"].items()}
            say(f"{network} {part}: {job.key}, {metric} on holdout {shown}, {sum(found['seconds'].values()):.0f} s")


def _same(network: str, baseline: str) -> None:
    """Raise `BadInput` where what was done before was done with another dense network."""
    own = bench_of(network).baseline.sha256
    if own != baseline:
        remove = f"remove {cache_folder() / WORK}, its trials are of another one: {baseline[:12]}"
        raise BadInput("dense network", own[:12], remove)


def _worked(todo: Sequence[Job], latency: Mapping[str, Any]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs and what they came to, as they end; started in the order given."""
    with side_by_side(max(1, min(processes(), len(todo)))) as pool:
        futures = {pool.submit(work, job, latency[job.name]): job for job in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()


def processes() -> int:
    """How many candidates are trained at the same time, one thread each."""
    return int(os.environ.get("TRIALS_BENCH_PROCESSES") or len(os.sched_getaffinity(0)))


def measure(network: str, seconds: float = SITTING_S) -> None:
    """Measure the networks of each seed, as trained, in one sitting with the dense one at each precision.

    A seed whose candidates are not all trained yet is left for later.
    """
    kept, trained = choice(network)["kept"], done(network, SHORT)
    with journal(network, LATENCY) as known:
        for seed in NETWORKS[network].seeds:
            own = [job for job in jobs(network, kept) if job.seed == seed]
            for precision in precisions()[0] if all(job.key in trained for job in own) else ():
                key = f"seed {seed} {precision}"
                if key not in known:
                    known.add(key, _sitting(at(bench_of(network), precision), own, precision, seconds))
                    say(f"{network}: measured {key}, {known[key]['rounds']} rounds")


def _sitting(bench: TrialContext, own: Sequence[Job], precision: str, seconds: float) -> dict[str, Any]:
    """Latencies and the slots' 10th percentiles in milliseconds; the dense network at f32 sits beside at other ones."""
    shape = tuple(bench.task.example_input().shape)
    beside = {} if precision == "f32" else {DENSE_F32: bench.dense_f32}
    sitting = compare_many(
        {**{job.name: kept_model(job, precision, shape) for job in own}, **beside},
        bench.dense,
        MeasurementSetup(
            runner=bench.runner,
            runners=dict.fromkeys(beside, bench.places[0].at("f32").runner),
            device=bench.devices[0],
            time_limit_s=seconds,
            seed=own[0].seed,
        ),
    )
    return {
        "rounds": len(sitting.slots[DENSE]),
        "loads": sitting.loads,
        "device": bench.devices[0].to_json(),
        "latencies": {name: each.to_json() | {"device": None} for name, each in sitting.latencies.items()},
        "slots_ms": {name: [round(float(value), 5) for value in each] for name, each in sitting.slots.items()},
    }
