"""What the hub reads out of a sweep's file."""

from typing import Any

import pytest

from prunefleet.infra.hub.runs.sweep_config import has_models

NAMED: dict[str, Any] = {"objective": {"parameters": {}}, "profile": {"value": "p:v0"}}


@pytest.mark.parametrize(
    ("config", "has"),
    [
        ({"method": "bayes", "parameters": NAMED}, True),
        ({"method": "bayes", "parameters": NAMED | {"engine": {"value": "prunefleet"}}}, True),
        ({"method": "bayes", "parameters": NAMED | {"engine": {"value": "optuna"}}}, False),
        ({"method": "bayes", "parameters": {"objective": NAMED["objective"]}}, False),
        ({"method": "random", "parameters": NAMED}, False),
        ({"method": "bayes", "parameters": None}, False),
    ],
)
def test_only_the_hubs_own_search_with_a_profile_recommends(config: dict[str, Any], has: bool) -> None:
    """Another engine has no models of drop and latency, so its sweep's page does not ask for a recommendation."""
    assert has_models(config) is has
