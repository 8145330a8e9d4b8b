"""Wire tests run with the current client, and with an older one: a sample in `make test`, all in `make test-all`."""

import pytest

from support.clients import CURRENT, OLDER, Client
from support.needs import insist


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses `wandb_client`, itself or by a fixture, is one per client.

    The sample: `@pytest.mark.both` with the older one too, `@pytest.mark.older_alone` with that one in its place.
    """
    if "wandb_client" in metafunc.fixturenames:
        both, alone = (metafunc.definition.get_closest_marker(name) for name in ("both", "older_alone"))
        new = [pytest.mark.slow] if alone else []
        old = [pytest.mark.older_client, *([] if both or alone else [pytest.mark.slow])]
        clients = [pytest.param(CURRENT, id="current", marks=new), pytest.param(OLDER, id="older", marks=old)]
        metafunc.parametrize("wandb_client", clients, indirect=True, scope="module")


@pytest.fixture(scope="module")
def wandb_client(request: pytest.FixtureRequest) -> Client:
    """The client under test."""
    found: Client = request.param
    if found is OLDER:
        insist("older_client")
    return found
