"""Our search as the Optuna engine of `wandb sweep-scheduler`: what Optuna and the client ask of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import pytest

from prunefleet.infra import wandb_api
from prunefleet.infra.wandb_api import RemoteRun, RemoteSweep
from prunefleet.objective.profiles.space import Space

from support.controller import GROUPS, Problem, sweep_config

pytestmark = pytest.mark.skipif(not find_spec("optuna"), reason="needs optuna, as the extra dev installs it")
PROBLEM = Problem.seeded(0)
PATH = "e/p/abc"


@dataclass
class Server:
    """The sweep's runs as a server would tell them; `away` makes it raise."""

    runs: list[RemoteRun] = field(default_factory=list)
    away: bool = False

    def read(self, path: str) -> RemoteSweep:
        assert path == PATH
        if self.away:
            raise OSError("no route to host")
        return RemoteSweep(PATH, "RUNNING", None, tuple(self.runs))

    def begin(self, config: Mapping[str, Any]) -> None:
        self.runs.append(RemoteRun(f"r{len(self.runs)}", "running", dict(config)))

    def end(self, place: int) -> None:
        """The run at `place` has measured what the problem says."""
        run = self.runs[place]
        kept = Space(GROUPS).kept(run.config["ratio"])
        trial = PROBLEM.trial(run.name, {}, kept, 0)
        summary = {"score": trial.value, "metric_drop": trial.drop, "latency_ratio": trial.latency_ratio}
        self.runs[place] = replace(run, state="finished", summary={**summary, "outcome": "scored"})


@dataclass
class Info:
    config: dict[str, Any]
    id: str = "abc"
    entity: str = "e"
    project: str = "p"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has the problem's profile as an artifact."""
    from prunefleet.infra import scheduler

    found = Server()
    monkeypatch.setattr(scheduler, "_profile", lambda sweep: PROBLEM.profile())
    monkeypatch.setattr(wandb_api, "read_sweep", found.read)
    yield found


def info(**config: Any) -> Info:
    return Info({**sweep_config(), "method": "custom", **config})


def begun(server: Server, **config: Any) -> Any:
    """A study of the sweep."""
    from prunefleet.infra import scheduler

    made = scheduler.study(info(**config))
    made.sampler._read = server.read
    return made


def asked(study: Any) -> tuple[Any, dict[str, Any]]:
    """What the client does for one run: is anything left, ask, have the configuration made."""
    from prunefleet.infra.scheduler import candidate

    assert not study.sampler.is_exhausted(study)
    trial = study.ask()
    return trial, dict(candidate(trial))


def counts(config: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(Space(GROUPS).kept(config["ratio"]).values())


def test_the_first_runs_are_the_profile_s_warm_points(server: Server) -> None:
    """They come whole, constants included, and none twice although the server shows no run yet."""
    study = begun(server)
    configs = [asked(study)[1] for _ in range(3)]
    warm = [tuple(Space(GROUPS).kept(ratios).values()) for ratios in PROBLEM.profile().warm[:3]]
    assert [counts(config) for config in configs] == warm
    assert configs[0]["task"] == "formula"


def test_a_run_that_the_server_shows_counts_once(server: Server) -> None:
    """Runs of the server and those that Optuna was given are told apart by what they keep."""
    study = begun(server)
    _, first = asked(study)
    server.begin(first)
    _, second = asked(study)
    assert study.sampler._unseen(study, study.sampler._trials())[0].name == "asked-1"
    server.begin(second)
    assert study.sampler._unseen(study, study.sampler._trials()) == []


def test_a_run_from_before_is_left_as_it_is(server: Server) -> None:
    """The client has such a run's parameters asked for again; it gets no candidate, and teaches what it measured."""
    from prunefleet.infra.scheduler import candidate

    study = begun(server)
    _, first = asked(study)
    server.begin(first)
    server.end(0)
    again = begun(server)
    again.enqueue_trial({"ratio": first["ratio"]})
    assert dict(candidate(again.ask())) == {}
    _, second = asked(again)
    assert counts(second) == counts(asked(study)[1]) != counts(first)


def test_the_search_goes_on_while_the_server_is_away(server: Server) -> None:
    """With what it last told; a search that was never told anything says so instead of repeating what was tried."""
    study = begun(server)
    _, first = asked(study)
    server.away = True
    _, second = asked(study)
    assert counts(second) != counts(first)
    with pytest.raises(OSError, match="no route"):
        asked(begun(server))


def test_a_full_sweep_is_exhausted(server: Server) -> None:
    """`run_cap` ends the search, whatever the server knows yet."""
    study = begun(server, run_cap=1)
    asked(study)
    assert study.sampler.is_exhausted(study)


def test_the_clients_own_trial_gets_nothing() -> None:
    """The client tries `candidate` with a trial of a study of its own, before there is a search."""
    import optuna

    from prunefleet.infra.scheduler import candidate

    assert dict(candidate(optuna.create_study().ask())) == {}


def test_a_sweep_that_cannot_be_searched_is_one_line(server: Server) -> None:
    """The command prints it and ends; an unknown engine names field, value and remedy."""
    from prunefleet.infra import scheduler

    parameters = {**sweep_config()["parameters"], "engine": {"value": "magic"}}
    with pytest.raises(ValueError, match=r"parameters\.engine: got .*magic.*; write one constant"):
        scheduler.study(info(parameters=parameters))
