"""Which search a sweep gets: by its method, and for `bayes` by the engine that it names."""

from __future__ import annotations

from infra.controller.base import Controller
from infra.controller.grid import GridSearch
from infra.controller.random import RandomSearch
from objective.errors import BadInput
from objective.sweepfile import DEFAULT_ENGINE


def controller(method: str, engine: str = DEFAULT_ENGINE) -> Controller:
    """The search of that name in a sweep file, for `bayes` by that engine, whose library is loaded then.

    Raises `BadInput` for an engine whose package is missing.
    """
    if method == "grid":
        return GridSearch()
    if method == "random":
        return RandomSearch()
    if engine == DEFAULT_ENGINE:
        from infra.controller.bayes import BayesSearch

        return BayesSearch()
    try:
        return _other(engine)
    except ModuleNotFoundError as error:
        remedy = f"install prunefleet[engines] where the server runs: {error.name} is missing there"
        raise BadInput("parameters.engine", engine, remedy) from None


def _other(engine: str) -> Controller:
    if engine == "wandb":
        from infra.controller.wandb_engine import WandbSearch

        return WandbSearch()
    from infra.controller.optuna_engine import OptunaSearch

    return OptunaSearch()
