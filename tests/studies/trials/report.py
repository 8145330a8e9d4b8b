"""docs/results/trials.jsonl and trials.md: what `make bench-trials` measured, as far as it has come."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.trials.lines import Group, Line, against, grouped, lines, lost, noise, rank_interval, ranks, swapped, whole
from studies.trials.passes import choice
from studies.trials.study import DENSE, NETWORKS, precisions, unpacked
from support.paths import RESULTS

TITLES = {
    "demo": "The demonstration network on Fashion-MNIST",
    "elpv": "EfficientNet-Lite0 on solar cells (ELPV, fold 0)",
}
ORDER = ("f32", "bf16", "int8")
Pair = tuple[float, float]


def keep(network: str, really: bool = True) -> None:
    """Print a network's page, and write all that is known to the results unless this was only a trial of the bench."""
    found = {network: (lines(network), about(network))}
    print("\n" + section(network, *found[network]))
    if not really:
        return
    path, notes = RESULTS / "trials.jsonl", RESULTS / "trials-candidates.json"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = [line for line in known if line["network"] != network] + found[network][0]
    told = json.loads(notes.read_text()) if notes.exists() else {}
    told[network] = found[network][1]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in known))
    notes.write_text(json.dumps(told, indent=1) + "\n")
    (RESULTS / "trials.md").write_text(page(known, told))


def about(network: str) -> dict[str, Any]:
    """How the candidates were chosen, what they are to be, and what this host refuses."""
    request, setting = NETWORKS[network].request(), NETWORKS[network]
    return {
        "metric": request.goal.metric,
        "epochs": request.candidate.epochs,
        "longer": setting.longer,
        "seeds": list(setting.seeds),
        "refused": precisions()[1],
        **choice(network),
    }


def page(known: Sequence[Line], told: Mapping[str, Any]) -> str:
    """The page for what is known so far."""
    on = next((line["device"] for line in known if line.get("device")), None)
    where = (
        f"{on['cores']} × {on['cpu']}, {on['os']}, {_versions(on)}" if on else "a host that has measured nothing yet"
    )
    parts = [
        section(name, [line for line in known if line["network"] == name], told[name])
        if name in told
        else f"## {title}\n\nNot run yet: `make bench-trials` goes on with it.\n"
        for name, title in TITLES.items()
    ]
    return "\n".join([HEAD.format(where=where), *parts, TAIL])


def _versions(device: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in device["versions"].items())


HEAD = """\
# Trials: pruned evenly and by sensitivity

`make bench-trials` on {where}. Raw data: [trials.jsonl](trials.jsonl), a line for each trial with its settings, the
metrics of each split, what each test and holdout example came to, and the slots of its sitting;
[trials-candidates.json](trials-candidates.json), the candidates with the profile that they were chosen from.

- **Candidates.** "uniform 0.5" prunes every group by one half, rounded to the device's channel grid. Those called
  "chosen" are what the profile's sensitivity curves suggest, eight evenly spread in latency, from the slowest to the
  fastest. They have the same channels at every precision; filters of least L2 norm go.
- **Quality** is that of the network as deployed, INT8 after post-training quantisation: the mean over the seeds of
  fine-tuning, its 95 % interval by a bootstrap of the test examples, and the lowest and the highest seed.
- **Latency** is the ratio of 10th percentiles to the dense network's at the same precision, all candidates of a seed
  in one sitting after training: the mean over the seeds, and the lowest and highest end of their 95 % intervals.
  "noisy" counts the sittings whose dense network or ratio drifted.
"""
TAIL = """\
## What this does not show

- Another device, network or data set, and other seeds of the dense network, which was trained once.
- A search. The candidates were fixed before training; a sweep learns from its trials, as `make demo` shows.
- An even race with the dense network: candidates have had fine-tuning on top of its training.
- What uniform pruning comes to between its four ratios. The line between them is straight: where quality bends
  downwards it lies below the truth, which flatters the chosen ones.
"""


def section(network: str, found: Sequence[Line], told: Mapping[str, Any]) -> str:
    """A network's part of the page."""
    short = whole([line for line in found if line["epochs"] in (0, told["epochs"])], told["kept"])
    by_precision = {each: grouped(short, told["metric"], each, told["epochs"]) for each in ORDER}
    seeds = len({line["seed"] for line in short if line["name"] != DENSE})
    effort = told["profile"]["effort"]
    taken = sum(name.startswith("chosen") for name in told["kept"])
    timed = [ratio for curve in told["profile"]["curves"] for ratio in curve["latency_ratio"][:-1]]
    slow = sum(ratio > 1.05 for ratio in timed)
    parts = [
        f"## {TITLES.get(network, network)}\n",
        f"Fine-tuning: {told['epochs']:g} epochs, n = {seeds} seeds. Profile: at most {effort['levels']} levels a\n"
        f"group, {effort['examples']} examples of validation a point; its curves suggested\n"
        f"{told['profile']['suggested']} candidates, of which {taken} were taken. Of its {len(timed)} latencies\n"
        f"{slow} came out more than 5 % above the dense network's, which is noise of the host.\n",
        _state(found, told),
        _channels(told["kept"]),
    ]
    parts += [_table(each, groups) for each, groups in by_precision.items() if DENSE in groups]
    parts += [f"**{each}**: not measured on this processor: {why}.\n" for each, why in told["refused"].items()]
    parts += [_against(each, groups) for each, groups in by_precision.items()]
    parts += [_quantised(by_precision["f32"], by_precision["int8"])]
    parts += [_ranks(found, told)]
    return "\n".join(part for part in parts if part)


def _state(found: Sequence[Line], told: Mapping[str, Any]) -> str:
    """How far the bench has come, where it is not at its end."""
    own = [line for line in found if line["name"] != DENSE]
    trained = {(line["name"], line["seed"]) for line in own if line["epochs"] == told["epochs"]}
    longer = {line["name"] for line in own if line["epochs"] != told["epochs"]}
    wanted, many = len(told["kept"]) * len(told["seeds"]), len(told["kept"])
    if len(trained) == wanted and (len(longer) == many or not told["longer"]):
        return ""
    also = f", and {len(longer)} of {many} for longer" if told["longer"] else ""
    return (
        f"**Not finished**: {len(trained)} of {wanted} trials are trained{also}. The tables hold the seeds with which\n"
        f"all candidates are, of the wanted {', '.join(map(str, told['seeds']))}; `make bench-trials` goes on.\n"
    )


def _channels(kept: Mapping[str, Mapping[str, int]]) -> str:
    groups = list(next(iter(kept.values())))
    if len(groups) > 12:
        return f"{len(groups)} groups; their channels are in the raw data.\n"
    rows = "\n".join(
        f"| {name} | " + " | ".join(str(own[group]) for group in groups) + " |" for name, own in kept.items()
    )
    return f"| channels kept | {' | '.join(groups)} |\n|{'---|' * (len(groups) + 1)}\n{rows}\n"


def _table(precision: str, groups: Mapping[str, Group]) -> str:
    metrics = list(groups[DENSE].rows[0]["quality"]["test"])
    metric = groups[DENSE].metric
    others = [each for each in metrics if each != metric]
    beside = "" if precision == "f32" else " of dense at f32 |"
    head = f"| | MMACs | latency ratio |{beside} p50, ms | noisy | {metric} on test | seeds | holdout | validation |"
    head += "".join(f" {each} on test |" for each in others)
    rows = [_row(group, others, precision) for group in groups.values()]
    return f"### {precision}\n\n{head}\n|{'---|' * (head.count('|') - 1)}\n" + "\n".join(rows) + "\n"


def _row(group: Group, others: Sequence[str], precision: str) -> str:
    low, high = group.interval()
    quality = f"{group.mean('test'):.2%} [{low:.2%}, {high:.2%}]"
    least, most = group.spread("test")
    cells = [group.name, f"{group.rows[0]['macs'] / 1e6:.2f}", *_timed(group, precision), quality]
    cells += [f"{least:.2%} to {most:.2%}" if len(group.rows) > 1 and group.name != DENSE else ""]
    cells += [f"{group.mean(split):.2%}" for split in ("holdout", "validation")]
    cells += [f"{group.mean('test', each):.2%}" for each in others]
    return f"| {' | '.join(cells)} |"


def _timed(group: Group, precision: str) -> list[str]:
    if not group.timed:
        return ["not measured"] * (3 if precision == "f32" else 4)
    low, high = group.ends()
    beside = [] if precision == "f32" else [f"{group.ratio('ratio_f32'):.3f}"]
    noisy = sum(each["noisy"] for each in group.timed)
    p50 = group.ratio("p50_ms")
    return [f"{group.ratio():.3f} [{low:.3f}, {high:.3f}]", *beside, f"{p50:.3f}", f"{noisy} of {len(group.timed)}"]


def _against(precision: str, groups: Mapping[str, Group]) -> str:
    """The chosen ones against the line of uniform pruning; those beyond its fast end are left out."""
    chosen = [name for name in groups if name.startswith("chosen")]
    rungs = [group for name, group in groups.items() if name.startswith("uniform")]
    if not chosen or not rungs or not all(group.timed for group in groups.values()):
        return ""
    fastest = min(group.ratio() for group in rungs)
    inside = [name for name in chosen if groups[name].ratio() >= fastest]
    found = {name: against(groups, name) for name in inside}
    gains = [each["equal_latency"] for each in found.values()]
    better, worse = sum(each["gain_lo"] > 0 for each in gains), sum(each["gain_hi"] < 0 for each in gains)
    mean = np.mean([each["gain"] for each in gains]) if gains else 0.0
    left_out = ", ".join(name for name in chosen if name not in inside) or "none"
    return (
        "Chosen by sensitivity against the straight line through the dense network and the uniform ones,\n"
        f"{precision}: at equal latency {better} of {len(gains)} are better beyond their 95 % interval, {worse} are\n"
        f"worse, not corrected for their number; mean of the gains {mean:+.2%}. Faster than any uniform one, so not\n"
        f"compared: {left_out}.\n\n"
        "| | at equal latency, on test | latency saved at equal quality |\n|---|---|---|\n"
        + "\n".join(_compared(name, each) for name, each in found.items())
        + "\n"
    )


def _compared(name: str, found: Mapping[str, Mapping[str, float]]) -> str:
    gain, saved = found["equal_latency"], found["equal_quality"]
    return (
        f"| {name} | {gain['gain']:+.2%} [{gain['gain_lo']:+.2%}, {gain['gain_hi']:+.2%}]"
        f" | {saved['saved']:+.1%} [{saved['saved_lo']:+.1%}, {saved['saved_hi']:+.1%}] |"
    )


def _quantised(plain: Mapping[str, Group], rounded: Mapping[str, Group]) -> str:
    both = [name for name in plain if name in rounded]
    if not both:
        return ""
    found = {name: lost(plain[name], rounded[name]) for name in both}
    rows = "\n".join(f"| {name} | {drop:+.2%} [{low:+.2%}, {high:+.2%}] |" for name, (drop, low, high) in found.items())
    head = "Lost by INT8, the same trained networks, paired | on test (below 0: gained)"
    return f"| {head} |\n|---|---|\n{rows}\n"


def _ranks(found: Sequence[Line], told: Mapping[str, Any]) -> str:
    longest = told["epochs"] * (told["longer"] or 0)
    own = [line for line in found if line["precision"] == "f32" and line["name"] != DENSE]
    first = min((line["seed"] for line in own), default=0)
    short = {line["name"]: line for line in own if line["epochs"] == told["epochs"] and line["seed"] == first}
    longer = {line["name"]: line for line in own if longest and line["epochs"] == longest}
    names = [name for name in short if name in longer]
    if len(names) < 3:
        return ""
    pairs = [short[name] for name in names], [longer[name] for name in names]
    metric, after = told["metric"], f"{told['epochs']:g} and {longest:g} epochs"
    judged = {split: [_values(each, metric, split) for each in pairs] for split in ("holdout", "test")}
    ends, same = (
        rank_interval(*judged["holdout"]),
        noise([unpacked(r["examples"]["holdout"]) for r in pairs[1]], metric),
    )
    order, on = swapped(*pairs, metric), {split: ranks(*each) for split, each in judged.items()}
    again = [
        _values([each for name in names for each in own if _is(each, name, told, seed)], metric, "holdout")
        for seed in sorted({line["seed"] for line in own})
        if seed != first
    ]
    seeds = [ranks(judged["holdout"][0], each)["rho"] for each in again if len(each) == len(names)]
    rows = "\n".join(
        f"| {name} | {one:.2%} | {other:.2%} |" for name, one, other in zip(names, *judged["holdout"], strict=True)
    )
    return f"""\
### Short and long fine-tuning: {after}

n = {len(names)} candidates, seed {first}, f32, {metric} on holdout:
Spearman's rho {_with(on["holdout"]["rho"], ends["rho"])}, Kendall's tau {_with(on["holdout"]["tau"], ends["tau"])}
(95 %, bootstrap of the candidates); on test {on["test"]["rho"]:.3f} and {on["test"]["tau"]:.3f}.

- Evaluation noise: the networks trained for longer, judged twice on other examples (two independent bootstraps of
  holdout), would agree with themselves by rho {same["rho"]:.3f} and tau {same["tau"]:.3f} on average.
- {order["swapped"]} of {order["pairs"]} pairs change their order; in {order["noise"]} of these the
  difference after short or after long training is within its paired 95 % interval on holdout.
- Short fine-tuning with other seeds: rho {", ".join(f"{each:.3f}" for each in seeds) or "not measured"} to that with
  seed {first}.

| | {told["epochs"]:g} epochs | {longest:g} epochs |
|---|---|---|
{rows}
"""


def _is(line: Line, name: str, told: Mapping[str, Any], seed: int) -> bool:
    return bool(line["name"] == name and line["epochs"] == told["epochs"] and line["seed"] == seed)


def _values(rows: Sequence[Line], metric: str, split: str) -> list[float]:
    return [row["quality"][split][metric] for row in rows]


def _with(found: float, ends: Pair) -> str:
    return f"{found:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
