"""Where a trial meets wandb: run.config in; history, summary and artifacts out, in the words of docs/trial.md."""

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import wandb
import yaml
from wandb.errors import AuthenticationError, CommError, UsageError

from prunefleet.agent.host.failures import explain
from prunefleet.agent.host.stop import StopSignal
from prunefleet.agent.tracking.probe import is_away, masked
from prunefleet.agent.tracking.retry import outlasting
from prunefleet.agent.tracking.summary import FAILURE_KEYS, SCORE_KEYS, latencies_words, stages, summary
from prunefleet.objective.errors import BadInput
from prunefleet.objective.patience import be_patient
from prunefleet.objective.sweepfile import DEFAULT_UPLOAD
from prunefleet.objective.trial import Failure, FailureKind, Measurement, Outcome, Score, Skipped, TrialFailed
from prunefleet.objective.wandb_login import base_url, key_for

ANSWERS = {FailureKind.INFEASIBLE: Outcome.INFEASIBLE, FailureKind.DIVERGED: Outcome.DIVERGED}
AWAY_S = 600.0
"""How long artifacts wait for a server that is away, as long as a device is waited for."""
INCUMBENT_S = 5.0
"""How long a trial waits to hear what is the best score so far; without word it goes on."""

T = TypeVar("T")

LOADED_LATE = ("wandb.apis.public", "wandb.sdk.launch", "wandb.sdk.artifacts._generated.artifact_by_id")
"""What the client loads when a run is opened or an artifact logged."""


def preload() -> None:
    """Load that now; what another version of the client has not costs each trial its time, and nothing else."""
    for name in LOADED_LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class TrackedRun:
    """An open run on the server: what this process tells it, and the project's artifacts."""

    def __init__(self, run: wandb.Run, stop: StopSignal | None = None) -> None:
        self._run, self._stop = run, stop or StopSignal()

    @property
    def name(self) -> str:
        """The run's 8-character id."""
        return str(self._run.id)

    @property
    def project(self) -> str:
        """entity/project of the run."""
        return f"{self._run.entity}/{self._run.project}"

    @property
    def sweep(self) -> str | None:
        """The id of the run's sweep."""
        return self._run.sweep_id

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration as plain, nested values."""
        found: dict[str, Any] = plain(dict(self._run.config))
        return found

    def note(self, values: Mapping[str, Any]) -> None:
        """Add to the run's configuration, or change it."""
        self._run.config.update(dict(values), allow_val_change=True)  # type: ignore[no-untyped-call]

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to the run's history."""
        self._run.log(dict(row))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Add to the run's summary, or change it."""
        self._run.summary.update(dict(values))

    def scored(self, measurement: Measurement, score: Score, seconds: Mapping[str, float]) -> None:
        """Report a trial that came to a score."""
        found = {"outcome": Outcome.SCORED.value, **summary(measurement, score), **stages(seconds)}
        self.log({key: found[key] for key in ("score", "latency_ratio", f"val_{measurement.accuracy.metric}")})
        self.summarise(found | self._cleared(FAILURE_KEYS))

    def skipped(self, skipped: Skipped, seconds: Mapping[str, float]) -> None:
        """Report a trial that could not win: its latency, and no score, not even an earlier attempt's."""
        found = {
            "outcome": Outcome.SKIPPED.value,
            "score_bound": skipped.bound,
            "incumbent": skipped.incumbent,
            **latencies_words(skipped.latencies),
            "params": skipped.params,
            "macs": skipped.macs,
            **stages(seconds),
        }
        self.log({"latency_ratio": skipped.worst.ratio})
        self.summarise(found | self._cleared((*FAILURE_KEYS, *SCORE_KEYS)))

    def incumbent(self) -> float | None:
        """The best score that the run's sweep has so far; None where it has none or the server is slow to tell."""
        if self._run.sweep_id is None:
            return None
        found: list[float] = []
        asking = threading.Thread(target=self._ask, args=(found,), daemon=True, name="incumbent")
        asking.start()
        asking.join(INCUMBENT_S)  # the client would go on trying for longer than a trial takes
        return found[0] if found else None

    def _ask(self, found: list[float]) -> None:
        scored = {"sweep": str(self._run.sweep_id), "summary_metrics.outcome": Outcome.SCORED.value}
        with contextlib.suppress(Exception):  # whatever it is, the trial goes on without
            runs = wandb.Api(timeout=int(INCUMBENT_S)).runs(
                self.project, filters=scored, order="-summary_metrics.score", per_page=1
            )
            found += [float(run.summary["score"]) for run in runs[:1]]

    def _cleared(self, keys: Sequence[str]) -> dict[str, None]:
        """What an earlier attempt of this run said and this one does not."""
        return {key: None for key in keys if key in self.told()}

    def told(self) -> dict[str, Any]:
        """The summary so far: that of an earlier attempt, where the run is tried again."""
        return dict(self._run.summary)

    def answered(self, values: Mapping[str, Any]) -> None:
        """Add what a request comes to, and take back what an earlier attempt failed of."""
        self.summarise({**values, **self._cleared(FAILURE_KEYS)})

    def failed(self, failure: Failure, seconds: Mapping[str, float]) -> None:
        """Report a failure; a candidate's is an answer and has an outcome, a host's has none and is tried again."""
        found = dict(zip(FAILURE_KEYS, (failure.kind.value, failure.stage, failure.message), strict=True))
        if failure.kind in ANSWERS:
            found["outcome"] = ANSWERS[failure.kind].value
        # A rung's score is no score of a trial.
        self.summarise(found | self._cleared(SCORE_KEYS) | stages(seconds))

    def refused(self, error: BadInput, stage: str) -> None:
        """Report that the sweep asks for what no host can do."""
        self.summarise(dict(zip(FAILURE_KEYS, ("bad_input", stage, str(error)), strict=True)))

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        """Log an artifact with these files; returns its version, such as "v0", once the server has it."""
        artifact = wandb.Artifact(name, kind, metadata=dict(metadata))
        for file in files:
            artifact.add_file(str(file), policy="mutable")
        logged = self.outlasting(lambda: self._run.log_artifact(artifact))
        return str(self.outlasting(logged.wait).version)

    def outlasting(self, ask: Callable[[], T]) -> T:
        """What the server answers, however often it must be asked while it is away: for `AWAY_S` or until a stop."""

        def check() -> None:
            if (why := self._stop.reason()) is not None:
                raise TrialFailed(Failure(FailureKind.SERVER, "server", f"{base_url()} is away, and {why}"))

        return outlasting(ask, AWAY_S, check)

    def offer(self, name: str, kind: str, versions: Mapping[str, Mapping[str, Path]]) -> None:
        """Log a version of artifact `name` for each alias, of files by their name in it, once the server has them."""
        logged = []
        for alias, files in versions.items():
            artifact = wandb.Artifact(name, kind, metadata={"sha256": alias})
            for inside, file in files.items():
                artifact.add_file(str(file), name=inside, policy="mutable")
            logged.append(self.outlasting(partial(self._run.log_artifact, artifact, aliases=[alias])))
        for artifact in logged:
            self.outlasting(artifact.wait)

    def fetch(self, name: str, folder: Path) -> bool:
        """Put the files of artifact `name` (`:v0` unless it names a version) into `folder`; False if there is none."""
        path = f"{self.project}/{name if ':' in name else f'{name}:v0'}"
        if not self.outlasting(lambda: wandb.Api().artifact_exists(path)):
            return False
        self.outlasting(lambda: self._run.use_artifact(path).download(root=str(folder)))
        return True

    def named(self, kind: str, sha256: str) -> str | None:
        """Return the name of the project's artifact of that type whose metadata has this SHA-256; None without one."""
        return self.outlasting(lambda: _named(wandb.Api(), self.project, kind, sha256))

    def finish(self, exit_code: int, again: bool = False) -> None:
        """End the run and wait until the server has everything; `again` hands it back, to be tried once more."""
        if again:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)


def start(stop: StopSignal, job_type: str | None = None, upload: str | None = None, **options: Any) -> TrackedRun:
    """Open the run that `wandb agent` gave this process, or else a new one; `options` go to `wandb.init`.

    `upload` says what may leave this host, as in the sweep file; the agent's own run is asked for it.

    Raises `BadInput` for a key that the server refuses, `TrialFailed` where it does not answer or the disk is full.
    """
    be_patient(os.environ)
    settings = wandb.Settings(stop_fn=stop.by_server.set)
    _keep_back(settings, upload or _asked_upload())
    if not {"WANDB_SILENT", "WANDB_QUIET"} & set(os.environ):
        settings.quiet = True
    try:
        run = wandb.init(job_type=job_type, resume="allow", settings=settings, **options)
    except (AuthenticationError, UsageError) as error:
        if is_away():  # the client takes its silence for a refusal
            raise TrialFailed(_unheard(error)) from error
        key = masked(key_for(base_url()))
        raise BadInput("WANDB_API_KEY", key, f"set the key of a user of {base_url()}: {_brief(error)}") from error
    except CommError as error:
        raise TrialFailed(_unheard(error)) from error
    except OSError as error:
        raise TrialFailed(explain(error, "start")) from error
    return TrackedRun(run, stop)


def _unheard(error: Exception) -> Failure:
    return Failure(FailureKind.SERVER, "start", f"{base_url()} does not answer: {_brief(error)}")


def _keep_back(settings: wandb.Settings, upload: str) -> None:
    """Tell the client what it may not send: it would collect console lines, packages, git state and the program."""
    if upload != "all":
        settings.save_code = False  # a user's page on wandb.ai can switch it on
    if upload == "metrics":
        settings.console, settings.disable_git = "off", True
        settings.x_save_requirements, settings.x_disable_meta = False, True


def _asked_upload() -> str:
    """What the sweep's constant `upload` says, before the run is open: from the file that `wandb agent` wrote."""
    try:
        given = yaml.safe_load(Path(os.environ["WANDB_SWEEP_PARAM_PATH"]).read_text())
        return str(given["upload"]["value"])
    except (KeyError, OSError, TypeError, yaml.YAMLError):
        return DEFAULT_UPLOAD


@contextmanager
def own_run(stop: StopSignal, job_type: str, **options: Any) -> Iterator[TrackedRun]:
    """A run of its own for a command: ended well with the block, or as failed with an exception."""
    opened = start(stop, job_type, **options)
    try:
        yield opened
    except BaseException:
        opened.finish(1)
        raise
    opened.finish(0)


@dataclass(frozen=True)
class RunRecord:
    """A run as the server tells it: `name` is its 8-character id; config and summary are plain, nested values."""

    name: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


class Reader:
    """A sweep read back from the server; `sweep` is entity/project/id."""

    def __init__(self, sweep: str) -> None:
        self.project, _, self.name = sweep.rpartition("/")
        self._api = wandb.Api(timeout=30)
        try:
            self._sweep = self._api.sweep(sweep)  # type: ignore[no-untyped-call]
            self.config: Mapping[str, Any] = dict(self._sweep.config)
        except (CommError, ValueError) as error:
            raise BadInput(
                "sweep", sweep, f"name a sweep of {base_url()} as entity/project/id: {_brief(error)}"
            ) from error

    def runs(self) -> list[RunRecord]:
        """The sweep's runs, oldest first."""
        return [RunRecord(run.id, run.state, plain(dict(run.config)), _summary(run)) for run in self._sweep.runs]

    def fetch(self, name: str, folder: Path) -> bool:
        """Put the files of an artifact of the project into `folder`; False if there is none."""
        path = f"{self.project}/{name if ':' in name else f'{name}:v0'}"
        if not self._api.artifact_exists(path):
            return False
        self._api.artifact(path).download(root=str(folder))
        return True

    def named(self, kind: str, sha256: str) -> str | None:
        """Return the name of the project's artifact of that type whose metadata has this SHA-256; None without one."""
        return _named(self._api, self.project, kind, sha256)

    def publish(self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> str:
        """A reader writes no artifacts."""
        raise NotImplementedError(f"{name}: open a run to publish it")

    def offer(self, name: str, kind: str, versions: Mapping[str, Mapping[str, Path]]) -> None:
        """Log versions of an artifact as `TrackedRun.offer` does, in a run of their own."""
        entity, _, project = self.project.partition("/")
        with own_run(StopSignal(), "control", name=name, entity=entity, project=project) as opened:
            opened.offer(name, kind, versions)

    def update_summary(self, run: str, values: Mapping[str, Any]) -> None:
        """Change the summary of a run that has ended."""
        found = self._api.run(f"{self.project}/{run}")
        found.summary.update(dict(values))  # type: ignore[no-untyped-call]


def _named(api: wandb.Api, project: str, kind: str, sha256: str) -> str | None:
    if kind not in {each.name for each in api.artifact_types(project)}:
        return None
    names = [collection.name for collection in api.artifact_collections(project, kind)]
    held = (name for name in names if api.artifact(f"{project}/{name}:v0").metadata.get("sha256") == sha256)
    return next(held, None)


def _summary(run: Any) -> dict[str, Any]:
    return {key: value for key, value in plain(dict(run.summary)).items() if not key.startswith("_")}


def plain(value: Any) -> Any:
    """Nested mappings of wandb's own kinds as dictionaries."""
    return {str(key): plain(inner) for key, inner in value.items()} if hasattr(value, "items") else value


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
