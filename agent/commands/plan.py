"""`prunefleet plan`, and the dense model alone: what a sweep needs before its first trial.

Lines on standard output: `progress PHASE DONE/TOTAL TEXT` and `seconds PHASE S`.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import yaml

from prunefleet.agent.commands.watching import CommandWatch, print_progress, watching
from prunefleet.agent.compress.groups import Survey
from prunefleet.agent.compress.merge import merge
from prunefleet.agent.host.cache_files import cache_folder, replace_file
from prunefleet.agent.profile.make import make_profile
from prunefleet.agent.profile.points import Effort
from prunefleet.agent.profile.search_space import resolve
from prunefleet.agent.tasks.code.carried import NOT_UPLOADED, SHOWN, UPLOADED, keep, publish
from prunefleet.agent.tasks.code.source import Code, code_of
from prunefleet.agent.tasks.registry import module_of
from prunefleet.agent.tasks.task import digest, interval_by, named_data
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.proven import survey_of
from prunefleet.agent.trial.request import Request, from_sweep
from prunefleet.objective.devices import LOCAL, device_names
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.worth import worths
from prunefleet.objective.sweepfile import read_sweep_file
from prunefleet.objective.trial import Device

LONG = 64  # characters of a profile's name for its devices: W&B allows 128 in all


def plan(sweep_file: Path, out: Path | None, measure_on: str | None = None, mixed: int | None = None) -> int:
    """Train or fetch the dense model, measure the profile, log both as artifacts, and write the sweep file to `out`.

    Latencies are measured on the devices of the fleet `measure_on` (names with commas between), or where the sweep file
    says; `mixed` is how many candidates are timed that are pruned in several groups. Raises `BadInput`, or
    `TrialFailed` for a fault of this host; what was measured is kept for the next call.
    """
    effort = Effort(mixed=mixed)
    config = read_sweep_file(sweep_file)
    if measure_on:
        names = device_names("--measure-on", measure_on.split(","))
        measure = config["parameters"].setdefault("measure", {"parameters": {}})
        measure["parameters"]["device"] = {"value": names[0] if len(names) == 1 else list(names)}
    # What is planned with is what trials are held to.
    asked = from_sweep(config, sweep_file)
    own = code_of(module_of(asked.task))
    request = replace(asked, code=own.sha256 if own else None, data=None)
    for line in code_told(own, request.upload):
        print(line, flush=True)
    with watching() as watch, _plan_run(watch, f"plan {request.task}", request) as run:
        context = _dense(request, run, watch)
        reference = _profiled(request, context, run, watch, effort)
        code = _code(own, request.upload, run)
    if out:
        resolved = resolve(config, *reference, _energy(request, context), named_data(context.task), code)
        replace_file(out, yaml.safe_dump(resolved, sort_keys=False).encode())
        print(f"Wrote {out}: start its sweep with `wandb sweep {out}`", flush=True)
    return 0


def code_told(code: Code | None, upload: str) -> Iterator[str]:
    """What becomes of the task's code, a line for each file, where it is the user's own."""
    if code is None:
        return
    for name in sorted(code.files):
        yield f"code {name}: {len(code.files[name])} bytes"
    yield f"code {code.sha256[:SHOWN]}: {UPLOADED if upload == 'all' else NOT_UPLOADED}"


def _code(code: Code | None, upload: str, run: tracked_run.TrackedRun) -> str | None:
    """The code that was planned with, kept here and, where it may leave, in the project; how the sweep names it."""
    if code is None:
        return None
    keep(code)
    return publish(run, code) if upload == "all" else code.sha256


def _energy(request: Request, context: TrialContext) -> str | None:
    """The source of energy that all trials are to read: one that sees the runner on every device."""
    sources = {place.energy_source(request.runner) for place in context.places}
    return sources.pop() if len(sources) == 1 else None


def baseline(sweep_file: Path) -> int:
    """Train or fetch the dense model alone, and log it as an artifact. Raises as `plan` does."""
    request = replace(from_sweep(read_sweep_file(sweep_file), sweep_file), code=None, data=None)
    with watching() as watch, _plan_run(watch, f"dense {request.task}", request) as run:
        context = _dense(request, run, watch)
        run.summarise({"seconds_dense": context.baseline.seconds})
    return 0


def _plan_run(watch: CommandWatch, name: str, request: Request) -> AbstractContextManager[tracked_run.TrackedRun]:
    return tracked_run.own_run(watch.stopper, "plan", upload=request.upload, name=name)


def _dense(request: Request, run: tracked_run.TrackedRun, watch: CommandWatch) -> TrialContext:
    began = time.perf_counter()

    def progress(share: float, text: str) -> bool:
        print_progress("dense", round(100 * share), 100, text)
        return watch.stop() is None

    context = prepare(request, run, watch.during, progress, watch.check, fresh=True)
    quality = ", ".join(f"{name} {value:.4f}" for name, value in context.baseline.metrics["validation"].items())
    print_progress("dense", 100, 100, f"validation {quality}")
    print(f"seconds dense {time.perf_counter() - began:.1f}", flush=True)
    for line in described(_survey(context)):
        print(line, flush=True)
    print(interval_by(context.task, request.goal.metric), flush=True)
    return context


def _survey(context: TrialContext) -> Survey:
    return survey_of(context.task, context.baseline.network, context.baseline.sha256)


def described(found: Survey) -> Iterator[str]:
    """A line for each group, for each layer that stays whole, and for groups that share a dimension of the search."""
    for group in found.groups:
        proven = f" (proof: {group.proof})" if group.proof else ""
        yield f"group {group.name}: {group.width} channels of {', '.join(group.members)}{proven}"
    for layer, reason in found.whole.items():
        yield f"whole {layer}: {reason}"
    for dimension in merge(found.groups):
        if len(dimension.groups) > 1:
            yield f"merged {dimension.name}: {', '.join(dimension.groups)} share one ratio"


def _profiled(
    request: Request, context: TrialContext, run: tracked_run.TrackedRun, watch: CommandWatch, effort: Effort
) -> tuple[Profile, str]:
    began = time.perf_counter()

    def progress(done: int, total: int, text: str) -> None:
        print_progress("profile", done, total, text)
        watch.check()

    with watch.during("profile"):
        profile = make_profile(
            context.task,
            context.baseline,
            context.places,
            request.candidate.precision,
            request.goal,
            cache_folder(),
            progress,
            effort=effort,
        )
        reference = publish_profile(run, profile, named_after(context.devices))
    print(f"seconds profile {time.perf_counter() - began:.1f}", flush=True)
    for worth in worths(profile):
        print(worth, flush=True)
    run.summarise({"seconds_dense": context.baseline.seconds, "seconds_profile": time.perf_counter() - began})
    return profile, reference


def named_after(devices: Sequence[Device]) -> str:
    """The devices in a profile's name: of this host the kind, else their names, or how many where that grows long."""
    names = [device.name for device in devices]
    if names == [LOCAL]:
        return devices[0].kind
    told = "-".join(names)
    return f"on-{told}" if len(told) <= LONG else f"on-{len(names)}-devices-{digest(told)[:8]}"


def publish_profile(run: tracked_run.TrackedRun, profile: Profile, device_kind: str) -> str:
    """Log the profile as an artifact; returns how a sweep names it, such as "profile-fashion_mnist-cpu-f32:v0"."""
    name = f"profile-{profile.task}-{device_kind}-{profile.precision}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        file.write_text(json.dumps(profile.to_json(), indent=1))
        version = run.publish(name, "profile", [file], {"baseline": profile.baseline_hash, "made": profile.made})
    return f"{name}:{version}"
