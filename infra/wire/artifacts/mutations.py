"""What the client changes on artifacts: aliases, tags, descriptions, links, and deletions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prunefleet.infra.hub.artifacts.edits import ArtifactChange
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.file_rows import CollectionRow
from prunefleet.infra.wire.artifacts.queries import tag_nodes
from prunefleet.infra.wire.graphql.arguments import Given, taking
from prunefleet.infra.wire.graphql.execute import Info
from prunefleet.infra.wire.graphql.lookups import artifact_of_client, collection_id, find_project

DONE = {"success": True}


def alias_names(given: Given, field: str = "aliases") -> list[str]:
    """The words in W&B's `ArtifactAliasInput`s."""
    return [alias.text("alias") for alias in given.objects(field)]


def tag_names(given: Given, field: str = "tags") -> list[str]:
    """The words in W&B's `TagInput`s."""
    return [tag.text("tagName") for tag in given.objects(field)]


def _update(info: Info, given: Given) -> dict[str, Any]:
    change = ArtifactChange(
        description=given.maybe("description"),
        metadata=given.maybe("metadata"),
        ttl_seconds=given.whole("ttlDurationSeconds"),
        tags_added=tag_names(given, "tagsToAdd"),
        tags_removed=tag_names(given, "tagsToDelete"),
    )
    return {"artifact": info.context.hub.artifacts.revise(given.id("Artifact", "artifactID"), change)}


def _delete(info: Info, given: Given) -> dict[str, Any]:
    artifact_id, with_aliases = given.id("Artifact", "artifactID"), given.flag("deleteAliases")
    return {"artifact": info.context.hub.artifacts.delete(artifact_id, with_aliases=with_aliases)}


def _target(info: Info, given: Given) -> CollectionRow:
    entity, project, name = (given.text(key) for key in ("entityName", "projectName", "artifactCollectionName"))
    owner = find_project(info, entity, project)
    found = owner and info.context.hub.artifacts.collection_named(owner, name)
    if not found:
        raise Missing(f"artifact: {name[:140]!r} is not in {entity}/{project}")
    return found


def _add_aliases(info: Info, given: Given) -> dict[str, bool]:
    artifact_id = given.id("Artifact", "artifactID")
    for alias in given.objects("aliases"):
        info.context.hub.artifacts.add_aliases(artifact_id, _target(info, alias), [alias.text("alias")])
    return DONE


def _delete_aliases(info: Info, given: Given) -> dict[str, bool]:
    artifact_id = given.id("Artifact", "artifactID")
    for alias in given.objects("aliases"):
        info.context.hub.artifacts.delete_aliases(artifact_id, _target(info, alias), [alias.text("alias")])
    return DONE


def _link(info: Info, given: Given) -> dict[str, Any]:
    known = info.context.hub.artifacts
    number = given.maybe_id("Artifact", "artifactID") or artifact_of_client(info, given.text("clientID"))
    if number is None:
        raise Missing("artifact: it is not here yet; wait until it is logged, then link it")
    place = (given.maybe("entityName"), given.maybe("projectName"), given.text("artifactPortfolioName"))
    found = known.link(info.context.user, number, place, alias_names(given))
    return {"versionIndex": found.version, "artifactMembership": found}


def _unlink(info: Info, given: Given) -> dict[str, bool]:
    portfolio = collection_id(info, given.text("artifactPortfolioID"))
    info.context.hub.artifacts.unlink(given.id("Artifact", "artifactID"), portfolio)
    return DONE


def _collection(info: Info, given: Given) -> int:
    return collection_id(info, given.text("artifactSequenceID") or given.text("artifactPortfolioID"))


def _revise_collection(info: Info, given: Given) -> dict[str, Any]:
    known = info.context.hub.artifacts
    found = known.revise_collection(_collection(info, given), given.maybe("name"), given.maybe("description"))
    return {"artifactCollection": found}


def _move(info: Info, given: Given) -> dict[str, Any]:
    word = given.text("destinationArtifactTypeName")
    return {"artifactCollection": info.context.hub.artifacts.retype_collection(_collection(info, given), word)}


def _delete_collection(info: Info, given: Given) -> dict[str, Any]:
    return {"artifactCollection": info.context.hub.artifacts.delete_collection(_collection(info, given))}


def _add_tags(info: Info, given: Given) -> dict[str, Any]:
    names = tag_names(given)
    info.context.hub.artifacts.tag_collection(_target(info, given), names, ())
    return {"tags": tag_nodes(names)}


def _delete_tags(info: Info, given: Given) -> dict[str, bool]:
    info.context.hub.artifacts.tag_collection(_target(info, given), (), tag_names(given))
    return DONE


MUTATIONS: Mapping[str, Callable[..., Any]] = {
    "updateArtifact": taking(_update),
    "deleteArtifact": taking(_delete),
    "addAliases": taking(_add_aliases),
    "deleteAliases": taking(_delete_aliases),
    "linkArtifact": taking(_link),
    "unlinkArtifact": taking(_unlink),
    "updateArtifactSequence": taking(_revise_collection),
    "updateArtifactPortfolio": taking(_revise_collection),
    "moveArtifactSequence": taking(_move),
    "deleteArtifactSequence": taking(_delete_collection),
    "deleteArtifactPortfolio": taking(_delete_collection),
    "createArtifactCollectionTagAssignments": taking(_add_tags),
    "deleteArtifactCollectionTagAssignments": taking(_delete_tags),
}
