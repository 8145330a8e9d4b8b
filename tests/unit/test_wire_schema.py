"""The schema against the operations that the installed client itself holds."""

import re
from pathlib import Path
from types import ModuleType

import graphql
import pytest
import wandb
from wandb.apis._generated import operations as api_operations
from wandb.sdk.artifacts._generated import operations as artifact_operations
from wandb.sdk.internal._generated import operations as internal_operations

from infra.wire.graphql import build_schema

# What the hub does not serve, by the client's operation: docs/hub.md says so in words.
NOT_SERVED = {
    # launch queues
    "CreateDefaultResourceConfig CreateRunQueue UpsertRunQueue",
    # saved charts
    "CreateCustomChart",
    # teams, invitations, keys made by users
    "GetTeamEntity CreateTeam CreateInvite DeleteInvite CreateServiceAccount CreateUserFromAdmin DeleteApiKey",
    "GenerateApiKey FetchOrganization FetchOrgInfoFromEntity",
    # registries
    "FetchAdvancedRegistryFeatures RegistryVersions RegistryCollections FetchRegistry FetchRegistries RenameRegistry",
    "UpsertRegistry DeleteRegistry RegistryUserMembers RegistryTeamMembers CreateRegistryMembers",
    "DeleteRegistryMembers UpdateUserRegistryRole UpdateTeamRegistryRole",
}
REFUSED = {name for line in NOT_SERVED for name in line.split()}
START = re.compile(rb"(?:query|mutation) ([A-Z]\w+) ?(?:\([^)]*\) )?\{")
FRAGMENT = re.compile(rb"\s*fragment \w+ on \w+ \{")


def closing(text: bytes, start: int) -> int:
    """The place after the brace that closes the one before `start`."""
    depth, at = 1, start
    while depth:
        depth += {b"{": 1, b"}": -1}.get(text[at : at + 1], 0)
        at += 1
    return at


def core_operations() -> dict[str, str]:
    """The operations inside the wandb-core binary, with their fragments."""
    binary = (Path(wandb.__file__).parent / "bin" / "wandb-core").read_bytes()
    found = {}
    for match in START.finditer(binary):
        end = closing(binary, match.end())
        while fragment := FRAGMENT.match(binary, end):
            end = closing(binary, fragment.end())
        found[match[1].decode()] = binary[match.start() : end].decode()
    return found


def python_operations(module: ModuleType) -> dict[str, str]:
    """The operations of a generated module."""
    texts = [text for name, text in vars(module).items() if name.endswith("_GQL")]
    return {re.findall(r"(?:query|mutation)\s+(\w+)", text)[0]: text for text in texts}


OPERATIONS = (
    core_operations()
    | python_operations(api_operations)
    | python_operations(artifact_operations)
    | python_operations(internal_operations)
)
SCHEMA = build_schema()


def test_the_client_holds_operations() -> None:
    """The reading above finds what the client is known to send."""
    assert {"UpsertBucket", "RunResumeStatus", "HistoryPage", "GetSweep", "CreateArtifact"} <= set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - REFUSED))
def test_the_schema_takes_what_the_client_sends(name: str) -> None:
    """Each operation of the client is valid, except those the hub openly does not serve."""
    assert graphql.validate(SCHEMA, graphql.parse(OPERATIONS[name])) == []
