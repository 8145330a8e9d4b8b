"""The passes of the bench of trials: candidates are chosen, trained and judged, then measured; each can be resumed."""

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from support_trials import (
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
    processes,
    work,
)

from agent.bench import Bench
from agent.cache import cache_folder
from agent.journal import Journal
from agent.measure.benchmark import compare_many
from agent.steps import DENSE_F32

CHOICE, SHORT, LONG, LATENCY = "choice", "short", "long", "latency"
SITTING_S = 20.0
NAMES = (*(f"uniform {ratio:g}" for ratio in UNIFORM), *(f"chosen {place}" for place in range(1, CHOSEN + 1)))


@contextmanager
def journal(network: str, part: str) -> Iterator[Journal]:
    """What was done of a part of the bench on this host."""
    with Journal(cache_folder() / WORK / f"{network}-{part}.jsonl") as found:
        yield found


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def choice(network: str) -> dict[str, Any]:
    """The candidates of a network, chosen once."""
    with journal(network, CHOICE) as done:
        if CHOICE not in done:
            done.add(CHOICE, choose(network, lambda i, n, text: say(f"{network} profile {i}/{n} {text}")))
        found: dict[str, Any] = done[CHOICE]
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
    with journal(network, part) as done:
        if part == SHORT and DENSE not in done:
            done.add(DENSE, judge_dense(network, precisions()[0]))
        todo = [job for job in jobs(network, chosen["kept"], part) if job.key not in done]
        say(f"{network} {part}: {len(todo)} to train")
        for job, found in _worked(todo, chosen["latency"]):
            done.add(job.key, found)
            metric = bench_of(network).goal.metric
            shown = {name: round(each["quality"]["holdout"][metric], 4) for name, each in found["precisions"].items()}
            say(f"{network} {part}: {job.key}, {metric} on holdout {shown}, {sum(found['seconds'].values()):.0f} s")


def _worked(todo: Sequence[Job], latency: Mapping[str, Any]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs and what they came to, as they end; started in the order given."""
    started = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and locks that others hold
    with ProcessPoolExecutor(max(1, min(processes(), len(todo))), mp_context=started) as pool:
        futures = {pool.submit(work, job, latency[job.name]): job for job in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def measure(network: str, seconds: float = SITTING_S) -> None:
    """Measure the networks of each seed, as trained, in one sitting with the dense one at each precision."""
    chosen = choice(network)
    with journal(network, LATENCY) as done:
        for seed in NETWORKS[network].seeds:
            for precision in precisions()[0]:
                key = f"seed {seed} {precision}"
                own = [job for job in jobs(network, chosen["kept"]) if job.seed == seed]
                if key not in done:
                    done.add(key, _sitting(at(bench_of(network), precision), own, precision, seconds))
                    say(f"{network}: measured {key}, {done[key]['rounds']} rounds")


def _sitting(bench: Bench, own: Sequence[Job], precision: str, seconds: float) -> dict[str, Any]:
    """Latencies and the slots' 10th percentiles in milliseconds; the dense network at f32 sits beside at other ones."""
    shape = tuple(bench.task.example_input().shape)
    beside = {} if precision == "f32" else {DENSE_F32: bench.dense_f32}
    sitting = compare_many(
        {**{job.name: kept_model(job, precision, shape) for job in own}, **beside},
        bench.dense,
        runner=bench.runner,
        runners=dict.fromkeys(beside, bench.runner_f32),
        device=bench.device,
        time_limit_s=seconds,
        seed=own[0].seed,
    )
    return {
        "rounds": len(sitting.slots[DENSE]),
        "loads": sitting.loads,
        "device": bench.device.to_json(),
        "latencies": {name: each.to_json() | {"device": None} for name, each in sitting.latencies.items()},
        "slots_ms": {name: [round(float(value), 5) for value in each] for name, each in sitting.slots.items()},
    }
