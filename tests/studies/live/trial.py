"""What a live comparison does on this host: the latencies that a profile begins with, and real trials, side by side."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prunefleet.agent.compress.prune import prune
from prunefleet.agent.host.cache_files import cache_folder, only_one
from prunefleet.agent.host.journal import Journal
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.pace import SESSIONS
from prunefleet.agent.profile.points import points
from prunefleet.agent.tasks.task import digest, statistics
from prunefleet.agent.trial.context import TrialContext
from prunefleet.agent.trial.latency import AGAIN, CandidateLatency
from prunefleet.agent.trial.stage_cache import Stages
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Curve, Profile, warm_points

from studies.live.run import Comparison
from studies.live.study import HEAD, METHODS, PROFILE, WORK, Row, Setting
from studies.table import study as support_table
from studies.table.passes import PROFILE as TABLE_PROFILE
from studies.table.passes import TOGETHER, begin, sit_together, trial
from studies.table.study import Job, bench_of, table_of
from studies.trials.passes import say
from studies.trials.study import Kept
from support.side_by_side import side_by_side

HOST = ("kind", "cpu", "cores", "accelerator")
"""What of a device must be as it was: the ratios of a comparison are all of one host."""


def processes() -> int:
    """How many trials run at the same time, one thread each."""
    return int(os.environ.get("LIVE_BENCH_PROCESSES") or len(os.sched_getaffinity(0)))


def compare(setting: Setting) -> Iterator[Row]:
    """The trials that are missing, each in the table when it is given."""
    with only_one(cache_folder() / WORK / f"{setting.network}.lock"):
        start(setting)
        count = min(processes(), len(METHODS))
        with side_by_side(count) as pool:
            yield from Comparison(setting, live_trial, pool, count).rows()


def live_trial(network: str, kept: Mapping[str, int], seed: int, sitting_s: float) -> Row:
    """Time the untrained network against the dense one as a trial of the product does, then train and judge it."""
    torch.set_num_threads(1)
    began, watch, bench = time.process_time(), StageWatch(), bench_of(network)
    bench = replace(bench, seconds_to_measure=sitting_s)
    pruned = prune(bench.baseline.network, bench.task.example_input(), bench.groups, kept, "l2", seed)
    with tempfile.TemporaryDirectory() as folder:
        # Nothing is recalled: a latency is of this comparison's days, not of an earlier one's.
        (latency,) = CandidateLatency(pruned.network, bench, seed, Path(folder), watch, Stages(limit=0)).per_device
    spent = time.process_time() - began
    trained = trial(network, Job("live", "live", kept, seed))
    figures = {key: round(value, 5) for key, value in latency.to_json().items() if key in ("ratio_lo", "ratio_hi")}
    judged = ("validation", "holdout", "recalibrated", "failed", "params", "macs", "epochs", "arithmetic")
    return {
        "ratio": round(latency.ratio, 5),
        **figures,
        "baseline_p50_ms": round(latency.baseline_p50_ms, 5),
        "noisy": latency.noisy,
        **{key: trained[key] for key in judged if key in trained},
        "seconds": {stage: round(taken, 2) for stage, taken in watch.seconds.items()} | trained["seconds"],
        "processor_seconds": round(spent + trained["processor_seconds"], 2),
    }


def start(setting: Setting) -> None:
    """The head of a comparison and the profile that its searches know, made once; it goes on on the same host alone."""
    table, bench = setting.table, bench_of(setting.network)
    begin(setting.network)  # raises where the network is another than the table's
    if not table.rows(HEAD):
        profile = host_profile(setting.network, setting.mixed)
        assert profile.groups == bench.space.groups, "searches name groups: merged ones have other names"
        table.replace(PROFILE, [{"row": PROFILE, "profile": profile.to_json()}])
        table.append(_head(setting, bench))
    head = table.rows(HEAD)[0]
    now, before = bench.devices[0].to_json(), head["device"]
    told: dict[str, tuple[object, object]] = {
        "dense network": (bench.baseline.sha256, head["baseline"]),
        "device": ({name: now[name] for name in HOST}, {name: before[name] for name in HOST}),
        "goal": (bench.goal.to_json(), head["goal"]),
    }
    for what, (got, was) in told.items():
        if got != was:
            raise BadInput(what, got, f"remove {table.path.name}, its trials are of {was}, or go on there")


def _head(setting: Setting, bench: TrialContext) -> Row:
    metric, dense, examples = bench.goal.metric, {}, {}
    for split in ("validation", "holdout"):
        dense[split] = bench.task.evaluate(bench.baseline.network, split)[metric]
        found = statistics(bench.task, bench.baseline.network, split, metric)
        assert found is not None
        examples[split] = len(found)
    return {
        "row": HEAD,
        "network": setting.network,
        "goal": bench.goal.to_json(),
        "baseline": bench.baseline.sha256,
        "device": bench.devices[0].to_json(),
        "dense": dense,
        "examples": examples,
        "macs": begin(setting.network)["dense"]["macs"],
        "sitting_s": setting.sitting_s,
    }


def host_profile(network: str, mixed: int | None) -> Profile:
    """The table's profile with this host's latencies, timed once and kept in the cache.

    Those of each group pruned alone, and of so many `mixed` candidates, as `prunefleet plan` draws them.
    """
    bench, effort = bench_of(network), replace(support_table.SETTINGS[network].effort, mixed=mixed)
    profile = Profile.from_json(table_of(network).rows(TABLE_PROFILE)[0]["profile"])
    wanted = points(bench.space.searched, effort)
    named = {f"{group}={kept[group]}" if group else f"mixed {at}": kept for at, (group, kept) in enumerate(wanted)}
    about = (str(sorted(bench.devices[0].to_json().items())), bench.baseline.sha256, str(effort), str(list(named)))
    found: dict[str, Any] = {}
    with Journal(cache_folder() / WORK / f"latency-{digest(*about)[:16]}.jsonl") as known:
        names = list(named)
        for first in range(0, len(names), TOGETHER):
            part = names[first : first + TOGETHER]
            if part[0] not in known:
                known.add(part[0], _sittings(network, {name: named[name] for name in part}, first))
                say(f"{network}: {min(first + TOGETHER, len(names))} of {len(names)} networks timed for the profile")
            found |= {name: float(known[part[0]][name]["ratio"]) for name in part}
    curves = tuple(_timed(curve, found) for curve in profile.curves)
    timed = tuple((kept, found[name]) for name, kept in named.items())
    device = f"{bench.devices[0].kind} ({bench.devices[0].cpu})"
    profile = replace(profile, curves=curves, latencies=timed, device=device, fingerprint=bench.devices[0])
    return replace(profile, warm=warm_points(profile, bench.goal))


def _sittings(network: str, kept: Mapping[str, Kept], seed: int) -> dict[str, Any]:
    """The surest latency of each network of up to three sittings, as many as it takes for one that is not noisy.

    One wrong latency in a curve would mislead a whole search, and no later trial of that group alone puts it right.
    """
    held: list[dict[str, Any]] = []
    while len(held) < SESSIONS and (not held or any(each["noisy"] for each in held[-1].values())):
        held.append(sit_together(network, kept, seed + AGAIN * len(held)))
    return {
        name: min((each[name] for each in held), key=lambda found: found["ratio_hi"] / found["ratio_lo"])
        for name in kept
    }


def _timed(curve: Curve, ratio: Mapping[str, float]) -> Curve:
    """The curve with other latencies; its last point is the dense network."""
    return replace(curve, latency_ratio=(*(ratio[f"{curve.group}={count}"] for count in curve.kept[:-1]), 1.0))
