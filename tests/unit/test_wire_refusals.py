"""What is not served is refused with its reason, not with the schema's complaint."""

import pytest
from test_wire_schema import OPERATIONS, SCHEMA

from infra.wire.graphql import Executor
from infra.wire.refusals import CHARTS, PEOPLE, PROJECTS, QUEUES, REGISTRIES, TEAMS, reason

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


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) & set(WHY)))
def test_a_refusal_names_what_is_not_here_and_what_to_do(name: str) -> None:
    """Each operation of the client for teams, people, registries, queues and charts gets one line that says why."""
    answer, status = EXECUTOR.run(OPERATIONS[name], {}, None, None)  # type: ignore[arg-type]
    assert (answer, status) == ({"errors": [{"message": WHY[name]}]}, 400)


def test_nothing_that_the_client_holds_is_refused_without_a_reason() -> None:
    """Of all operations of the installed client, what the schema rejects has a reason, but for queued sweep runs."""
    answers = {name: EXECUTOR._document(text) for name, text in OPERATIONS.items()}
    refused = {name: [error.message for error in found] for name, found in answers.items() if isinstance(found, tuple)}
    refused.pop("EnqueueSweepRun", None)
    assert [name for name, complaints in refused.items() if reason(complaints) is None] == []
