"""What W&B has and this server has not, in words: the reason, where a client asks for a field that is not served."""

from __future__ import annotations

import re
from collections.abc import Iterable

TEAMS = (
    "teams: there are none here, every user is an entity of their own; "
    "leave the entity out, and ask the administrator for further users"
)
PEOPLE = "users, keys: a client cannot make or remove them here; the administrator does, with `prunefleet hub users`"
REGISTRIES = "organizations, registries: there are none here; link artifacts to a collection of a project of yours"
QUEUES = "launch queues: there are none here; start agents of a sweep with `wandb agent`"
CHARTS = "saved charts: they are not kept here; log a table or an image"
AUTOMATIONS = "automations, integrations: there are none here; an alert of a run is kept with it, nobody is mailed"
PROJECTS = "projects: a client cannot rename or delete one here; make another"

# Fields of the client's operations by the type they are asked of; "*" stands for every field that is not served.
_REASONS = {
    "Mutation": {
        TEAMS: "createTeam createInvite deleteInvite createServiceAccount",
        PEOPLE: "createUser deleteApiKey generateApiKey",
        REGISTRIES: "createProjectMembers deleteProjectMembers updateProjectMember updateProjectTeamMember",
        QUEUES: "createRunQueue upsertRunQueue createDefaultResourceConfig pushToRunQueue deleteRunQueues "
        "deleteFromRunQueue",
        AUTOMATIONS: "createFilterTrigger updateFilterTrigger deleteTrigger createGenericWebhookIntegration",
        CHARTS: "createCustomChart",
        PROJECTS: "renameProject deleteModel",
    },
    "Entity": {
        TEAMS: "available photoUrl readOnly readOnlyAdmin privateOnly storageBytes members",
        REGISTRIES: "*",
    },
    "Organization": {REGISTRIES: "*"},
    "Project": {
        QUEUES: "runQueue",
        AUTOMATIONS: "triggers",
        REGISTRIES: "teamMembers members allowAllArtifactTypesInRegistry",
    },
}
_UNKNOWN = re.compile(r"Cannot query field '(\w+)' on type '(\w+)'")


def reason(complaints: Iterable[str]) -> str | None:
    """Why what the schema complains of is not served; None where it is nothing of W&B's that we know."""
    asked = [found.groups() for found in map(_UNKNOWN.match, complaints) if found]
    for wildcard in (False, True):
        for field, kind in asked:
            for text, fields in _REASONS.get(kind, {}).items():
                if fields == "*" if wildcard else field in fields.split():
                    return text
    return None
