"""What of W&B's wire is served and refused, as tables.

`python -m prunefleet.infra.wire.graphql.schema_listing` prints those of docs/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from prunefleet.infra.wire.graphql.execute import build_schema, descriptions

ENDPOINTS: Mapping[str, str] = {
    "POST /graphql": "One operation: below",
    "POST /files/{entity}/{project}/{run}/file_stream": "A run's history, system metrics, summary, console and end. "
    "4xx only where the run is gone or the message makes no sense",
    "PUT /upload/{token}": "The bytes of a file; the address is signed and ends after six hours",
    "GET /download/{token}/{name}": "The bytes of a file, or a part; the address is signed and ends after an hour",
    "GET /artifactsV2/{place}": "One file of a version, by its MD5, with the key",
    "POST /sdk/otel/v1/{kind}": "The client's telemetry (metrics, logs, traces): taken and thrown away",
    "GET /{entity}/{project}/sweeps/{name}/agents.json": "Ours, no part of W&B's protocol: a sweep's agents, for "
    "`prunefleet agents`",
    "POST /{entity}/{project}/sweeps/{name}/agents.json": "Ours: pause, resume, drain or stop an agent, or all of "
    "a host; which runs a host left behind",
    "POST /join/tokens": "Ours: a token that lets one host join a sweep, for who has a person's key",
    "POST /join": "Ours: a token for a host's key, once",
    "POST /leave": "Ours: a host gives its key up",
    "GET /wheel/{name}.whl": "Ours: this hub's own code as a wheel; needs no key",
}

NOT_SERVED: Mapping[str, str] = {
    "launch queues": "CreateDefaultResourceConfig GetDefaultResourceConfig CreateRunQueue UpsertRunQueue "
    "DeleteRunQueue DeleteFromRunQueue fetchRunQueuesFromProject GetRunQueueItem GetRunQueueItems GetRunQueueMetadata",
    "saved charts": "CreateCustomChart",
    "teams, invitations, keys made by users": "GetTeamEntity CreateTeam CreateInvite DeleteInvite CreateServiceAccount "
    "CreateUserFromAdmin DeleteApiKey GenerateApiKey FetchOrganization FetchOrgInfoFromEntity",
    "registries": "FetchAdvancedRegistryFeatures RegistryVersions RegistryCollections FetchRegistry FetchRegistries "
    "RenameRegistry UpsertRegistry DeleteRegistry RegistryUserMembers RegistryTeamMembers CreateRegistryMembers "
    "DeleteRegistryMembers UpdateUserRegistryRole UpdateTeamRegistryRole",
    "automations and integrations": "CreateAutomation UpdateAutomation DeleteAutomation GetAutomations "
    "GetAutomationsByEntity GetAutomationsLegacy GetEntityAutomations GetEntityAutomationsLegacy GetOrgAutomations "
    "CreateGenericWebhookIntegration IntegrationsByEntity SlackIntegrationsByEntity "
    "GenericWebhookIntegrationsByEntity",
}
"""Operations of the client whose fields the schema does not have: each is answered with 400."""


def endpoints_markdown() -> str:
    """The addresses as a Markdown table."""
    return "\n".join(["| address | |\n|---|---|", *(f"| `{name}` | {told} |" for name, told in ENDPOINTS.items())])


def operations_markdown(type_name: str) -> str:
    """The fields of Query, Mutation or Project as a Markdown table, each with its description in the schema."""
    told = descriptions(build_schema(), type_name)
    return "\n".join(["| field | |\n|---|---|", *(f"| `{name}` | {text} |" for name, text in told.items())])


def refused_markdown() -> str:
    """What is not served, with the client's names of the operations, as a Markdown table."""
    lines = [
        f"| {what} | {', '.join(f'`{name}`' for name in sorted(names.split()))} |" for what, names in NOT_SERVED.items()
    ]
    return "\n".join(["| not served | operations |\n|---|---|", *lines])


def tables() -> list[str]:
    """All tables of the page, in its order."""
    types = [operations_markdown(name) for name in ("Query", "Mutation", "Project")]
    return [endpoints_markdown(), *types, refused_markdown()]


if __name__ == "__main__":
    print(*tables(), sep="\n\n")
