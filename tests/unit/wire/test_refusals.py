"""What is not served is refused with its reason, not with the schema's complaint."""

import random

import pytest

from prunefleet.infra.wire.graphql.execute import Executor
from prunefleet.infra.wire.graphql.refusals import CHARTS, PEOPLE, PROJECTS, QUEUES, REGISTRIES, TEAMS, reason

from support.schema import CLIENTS, SCHEMA

WHY = {
    "CreateTeam": TEAMS,
    "CreateInvite": TEAMS,
    "DeleteInvite": TEAMS,
    "CreateServiceAccount": TEAMS,
    "GetTeamEntity": TEAMS,
    "CreateUserFromAdmin": PEOPLE,
    "GenerateApiKey": PEOPLE,
    "DeleteApiKey": PEOPLE,
    "FetchOrganization": REGISTRIES,
    "FetchRegistry": REGISTRIES,
    "FetchRegistries": REGISTRIES,
    "UpsertRegistry": REGISTRIES,
    "RegistryUserMembers": REGISTRIES,
    "RegistryTeamMembers": REGISTRIES,
    "CreateRunQueue": QUEUES,
    "UpsertRunQueue": QUEUES,
    "CreateCustomChart": CHARTS,
    "RenameRegistry": PROJECTS,
    "DeleteRegistry": PROJECTS,
}
EXECUTOR = Executor(SCHEMA)


ASKED = [pytest.param(name, text, id=f"{name}-{client}") for (name, text), client in CLIENTS.items() if name in WHY]


@pytest.mark.parametrize(("name", "text"), ASKED)
def test_a_refusal_names_what_is_not_here_and_what_to_do(name: str, text: str) -> None:
    """Each operation of a client for teams, people, registries, queues and charts gets one line that says why."""
    answer, status = EXECUTOR.run(text, {}, None, None)  # type: ignore[arg-type]
    assert (answer, status) == ({"errors": [{"message": WHY[name]}]}, 400)


# A third of them in `make test`.
@pytest.mark.parametrize("share", [1 / 3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_nothing_that_a_client_holds_is_refused_without_a_reason(share: float) -> None:
    """Of all operations of the installed clients, what the schema rejects has a reason in words."""
    held = sorted(CLIENTS)
    answers = {name: EXECUTOR._document(text) for name, text in random.Random(1).sample(held, int(share * len(held)))}
    refused = {name: [error.message for error in found] for name, found in answers.items() if isinstance(found, tuple)}
    assert {name: complaints for name, complaints in refused.items() if reason(complaints) is None} == {}
