"""The passes of the bench of a table: candidates are trained and judged, then timed; each can be resumed."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunefleet.agent.compress.prune import Pruned, prune
from prunefleet.agent.host.cache_files import cache_folder, only_one
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.benchmark import MeasurementSetup, compare_many
from prunefleet.agent.profile.points import points
from prunefleet.agent.tasks.training import arithmetic, recalibrate
from prunefleet.agent.trial.context import TrialContext
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Candidate, Device, TrialFailed

from studies.table.study import (
    SETTINGS,
    WORK,
    Drawn,
    Job,
    Table,
    bench_of,
    draw,
    jobs,
    name_of,
    prepared,
    profile_of,
    table_of,
)
from studies.trials.passes import processes, say
from studies.trials.study import SPLITS, Kept
from support.side_by_side import side_by_side

HEAD, PROFILE, DEVICE, TRIAL, LATENCY, GRID = "head", "profile", "device", "trial", "latency", "grid"
AGAIN = "again"
TOGETHER = 11
"""Networks that are new in a sitting; one of the sitting before is in it again."""


def begin(network: str) -> dict[str, Any]:
    """The head of a table: what is tried, and what it is compared with; drawn once, where the table has none yet."""
    table = table_of(network)
    with only_one(cache_folder() / WORK / f"{name_of(network)}-head.lock"):
        if not table.rows(HEAD):
            _begin(network, table)
    head = table.rows(HEAD)[0]
    own = bench_of(network).baseline.sha256
    if own != head["baseline"]:
        remedy = f"remove {table.path.name}, its trials are of another one, {head['baseline'][:12]}, or bring that back"
        raise BadInput("dense network", own[:12], remedy)
    return head


def _begin(network: str, table: Table) -> None:
    setting, bench = SETTINGS[network], bench_of(network)
    profile = profile_of(network, lambda i, n, text: say(f"{network} profile {i}/{n} {text}"))
    drawn = draw(profile, bench.space, setting.candidates, setting.drawn)
    names, metric = list(bench.space.widths), bench.goal.metric
    whole = _pruned(bench, bench.space.widths, 0)
    found = {split: bench.task.evaluate(bench.baseline.network, split)[metric] for split in SPLITS}
    request = setting.request()
    head = {
        "row": HEAD,
        "network": network,
        "task": request.task,
        "metric": metric,
        "epochs": request.candidate.epochs,
        "lr": bench.lr or getattr(bench.task, "lr", None),
        "batch": getattr(bench.task, "batch_size", None),
        "groups": [{"name": spec.name, "width": spec.width, "step": spec.step} for spec in bench.space.groups],
        "baseline": bench.baseline.sha256,
        "dense": {**found, "params": whole.params, "macs": whole.macs, "seconds": bench.baseline.seconds},
        "drawn": setting.drawn,
        "candidates": [[origin, [kept[name] for name in names]] for origin, kept in drawn],
    }
    table.append({"row": PROFILE, "effort": vars(setting.effort), "profile": profile.to_json()})
    table.append(head)


def drawn_of(head: Mapping[str, Any]) -> list[Drawn]:
    """The candidates that a head names."""
    names = [group["name"] for group in head["groups"]]
    return [(origin, dict(zip(names, kept, strict=True))) for origin, kept in head["candidates"]]


def _pruned(bench: TrialContext, kept: Kept, seed: int) -> Pruned:
    return prune(bench.baseline.network, bench.task.example_input(), bench.groups, kept, "l2", seed)


def device_id(table: Table, device: Device) -> str:
    """What the rows call a device, which gets a row of its own when it is met first."""
    told = device.to_json()
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    if name not in {row["id"] for row in table.rows(DEVICE)}:
        table.append({"row": DEVICE, "id": name, "device": told})
    return name


def train(network: str, most: int | None = None) -> None:
    """Train and judge what is not done yet, `most` of it at most; each row is in the table as soon as it is known."""
    table, head = table_of(network), begin(network)
    with only_one(cache_folder() / WORK / f"{name_of(network)}-trained.lock"):
        known = {f"{row['name']} seed {row['seed']}" for row in table.rows(TRIAL)}
        todo = [job for job in jobs(drawn_of(head), SETTINGS[network]) if job.key not in known][:most]
        device = device_id(table, bench_of(network).devices[0])
        say(f"{network}: {len(todo)} to train, {len(known)} are done")
        for job, row in _worked(network, todo):
            table.append(row | {"device": device})
            drop = head["dense"]["validation"] - row.get("validation", 0.0)
            say(f"{network}: {job.key} {job.origin}, drop {drop:+.4f}, {sum(row['seconds'].values()):.1f} s")


def _worked(network: str, todo: Sequence[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs and their rows, as they end; in this very process where there is to be one."""
    if min(processes(), len(todo)) <= 1:
        yield from ((job, trial(network, job)) for job in todo)
        return
    with side_by_side(min(processes(), len(todo))) as pool:
        futures = {pool.submit(trial, network, job): job for job in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()


def trial(network: str, job: Job) -> dict[str, Any]:
    """Prune, train and judge a candidate; metrics are fractions, seconds by stage. One that diverges has no metric."""
    torch.set_num_threads(1)
    bench, watch, setting, began = bench_of(network), StageWatch(), SETTINGS[network], time.process_time()
    task, metric = bench.task, bench.goal.metric
    candidate = Candidate(bench.space.ratios(job.kept), "f32", setting.request().candidate.epochs, job.seed)
    with watch.during("prune"):
        pruned = _pruned(bench, job.kept, job.seed)
    found: dict[str, Any] = {}
    try:
        with watch.during("recalibrate"):
            recalibrate(task, pruned.network)
            found["recalibrated"] = task.evaluate(pruned.network, "validation", setting.effort.examples)[metric]
        with watch.during("train"):
            task.fit(pruned.network, bench.budget(candidate), watch.rung)
        with watch.during("evaluate"):
            found |= {split: task.evaluate(pruned.network, split)[metric] for split in SPLITS[:2]}
    except TrialFailed as error:
        if not error.failure.teaches:
            raise
        found["failed"] = str(error)
    how = arithmetic(task.name)
    return {
        "row": TRIAL,
        "name": job.name,
        "origin": job.origin,
        "kept": dict(job.kept),
        "seed": job.seed,
        "epochs": candidate.epochs,
        **found,
        "params": pruned.params,
        "macs": pruned.macs,
        "seconds": {stage: round(taken, 2) for stage, taken in watch.seconds.items()},
        "processor_seconds": round(time.process_time() - began, 2),
        "arithmetic": how.told()["arithmetic"] if how else None,
        "baseline": bench.baseline.sha256[:12],
    }


def to_time(head: Mapping[str, Any], bench: TrialContext, network: str) -> dict[str, Kept]:
    """What is to be timed, by name: each candidate, and each group pruned alone, as in the profile."""
    found: dict[str, Kept] = {f"c{place:03d}": kept for place, (_, kept) in enumerate(drawn_of(head))}
    for group, kept in points(bench.space.searched, SETTINGS[network].effort):
        found[f"{group}={kept[group]}"] = kept
    return found


def to_time_on_grid(bench: TrialContext, network: str) -> dict[str, Kept]:
    """Networks on the grid that a sweep has on this device, as `prunefleet plan` draws them before the first trial."""
    setting = SETTINGS[network]
    drawn = points(bench.space.searched, replace(setting.effort, mixed=setting.on_grid))
    return {f"{group}={kept[group]}" if group else f"g{place:03d}": kept for place, (group, kept) in enumerate(drawn)}


def measure(network: str, kind: str = LATENCY, anew: bool = bool(os.environ.get("TABLE_BENCH_ANEW"))) -> None:
    """Time every candidate on this host, untrained, and put that in the place of what was timed before.

    Of `GRID` other candidates, those of the device's own grid. Nothing is done where the table has all latencies,
    unless they are wanted `anew`. Sittings are kept aside until all are held, so that the latencies of a table are
    always of one host.
    """
    table, head = table_of(network), begin(network)
    bench = bench_of(network) if kind == LATENCY else prepared(network)
    wanted = to_time(head, bench, network) if kind == LATENCY else to_time_on_grid(bench, network)
    have = {row["name"] for row in table.rows(kind)}
    if have >= set(wanted) and not anew:
        say(f"{network}: all {len(wanted)} latencies are known; TABLE_BENCH_ANEW=1 measures them on this host anew")
        return
    device = device_id(table, bench.devices[0])
    aside = cache_folder() / WORK / f"{name_of(network)}-{kind}-{device}-{head['baseline'][:12]}.jsonl"
    parts = sittings(list(wanted), kind, SETTINGS[network].drawn)
    rows: dict[str, dict[str, Any]] = {}
    with Journal(aside) as known:
        for place, part in enumerate(parts):
            key = f"sitting {place}"
            if key not in known:
                known.add(key, sit_together(network, {name: wanted[name] for name in part}, place))
                say(f"{network}: {key} of {len(parts)} held")
            for name in part:
                if name in rows:
                    rows[name][AGAIN] = round(known[key][name]["ratio"], 5)
                else:
                    rows[name] = _row(known[key], name, wanted[name], place, device, kind)
    table.replace(kind, list(rows.values()))
    aside.unlink()


def sittings(names: Sequence[str], kind: str, seed: int) -> list[list[str]]:
    """Which networks are timed together. Some are so twice, which tells how well one measurement repeats another.

    Of candidates on the device's grid all are, minutes apart and in other company; of the table's own, one of each
    sitting is in the next one too.
    """

    def cut(each: Sequence[str]) -> list[list[str]]:
        return [list(each[first : first + TOGETHER]) for first in range(0, len(each), TOGETHER)]

    parts = cut(names)
    if kind == GRID:
        return parts + cut([names[place] for place in np.random.default_rng(seed).permutation(len(names))])
    return [[*(parts[place - 1][:1] if place else []), *part] for place, part in enumerate(parts)]


def sit_together(network: str, kept: Mapping[str, Kept], place: int) -> dict[str, Any]:
    """Latencies by name of some networks, untrained, against the dense one."""
    bench = bench_of(network)
    with tempfile.TemporaryDirectory() as folder:
        models = {
            name: bench.deploy(_pruned(bench, each, 0).network, Path(folder), f"m{at}", rough=True)
            for at, (name, each) in enumerate(kept.items())
        }
        sitting = compare_many(
            models,
            bench.dense,
            MeasurementSetup(
                runner=bench.runner,
                device=bench.devices[0],
                time_limit_s=SETTINGS[network].sitting_s,
                throughput_s=0.0,
                seed=place,
            ),
        )
    return {name: sitting.latencies[name].to_json() for name in kept}


def _row(found: Mapping[str, Any], name: str, kept: Kept, place: int, device: str, kind: str) -> dict[str, Any]:
    told = {key: round(found[name][key], 5) for key in ("ratio", "ratio_lo", "ratio_hi", "p50_ms", "baseline_p50_ms")}
    rest = {key: found[name][key] for key in ("n", "noisy", "settings")}
    return {"row": kind, "name": name, "kept": dict(kept), **told, **rest, "sitting": place, "device": device}


def joined(table: Table) -> list[dict[str, Any]]:
    """The trials that have a metric, each with its latency, None where it was not timed yet, and both devices."""
    devices = {row["id"]: row["device"] for row in table.rows(DEVICE)}
    timed = {row["name"]: row | {"device": devices[row["device"]]} for row in table.rows(LATENCY)}
    trials = [row for row in table.rows(TRIAL) if "failed" not in row]
    return [row | {"device": devices[row["device"]], LATENCY: timed.get(row["name"])} for row in trials]
