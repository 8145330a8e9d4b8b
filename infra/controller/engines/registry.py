"""Which search a sweep gets: by its method, and for `bayes` by the engine that it names."""

from __future__ import annotations

from prunefleet.infra.controller.contract import Controller
from prunefleet.infra.controller.engines.grid import GridSearch
from prunefleet.infra.controller.engines.random import RandomSearch
from prunefleet.objective.errors import BadInput
from prunefleet.objective.sweepfile import DEFAULT_ENGINE


def controller(method: str, engine: str = DEFAULT_ENGINE) -> Controller:
    """The search of that name in a sweep file, for `bayes` by that engine, whose library is loaded then.

    Raises `BadInput` for an engine whose package is missing.
    """
    if method == "grid":
        return GridSearch()
    if method == "random":
        return RandomSearch()
    if engine == DEFAULT_ENGINE:
        from prunefleet.infra.controller.engines.bayes import BayesSearch

        return BayesSearch()
    try:
        return _other(engine)
    except ModuleNotFoundError as error:
        remedy = f"install prunefleet[engines] where the server runs: {error.name} is missing there"
        raise BadInput("parameters.engine", engine, remedy) from None


def _other(engine: str) -> Controller:
    if engine == "wandb":
        from prunefleet.infra.controller.engines.wandb_engine import WandbSearch

        return WandbSearch()
    from prunefleet.infra.controller.engines.optuna_engine import OptunaSearch

    return OptunaSearch()
