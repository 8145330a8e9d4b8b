"""What the client changes on artifacts: aliases, tags, descriptions, links, and deletions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.hub.artifact_edit import ArtifactChange
from infra.hub.errors import Invalid, Missing
from infra.hub.file_rows import CollectionRow
from infra.wire.artifact_reads import collection_id, tag_nodes
from infra.wire.graphql import Info
from infra.wire.ids import decode
from infra.wire.users import find_project

Given = Mapping[str, Any]


def alias_names(given: Sequence[Given] | None) -> list[str]:
    """The words in W&B's `ArtifactAliasInput`s."""
    return [str(alias.get("alias") or "") for alias in given or ()]


def tag_names(given: Sequence[Given] | None) -> list[str]:
    """The words in W&B's `TagInput`s."""
    return [str(tag.get("tagName") or "") for tag in given or ()]


def whole(field: str, value: object) -> int | None:
    """A whole number, which may come as text. Raises `Invalid`."""
    try:
        return None if value is None else int(str(value))
    except ValueError as error:
        raise Invalid(f"{field}: got {str(value)[:40]!r}; send a whole number") from error


def _artifact_id(given: Given) -> int:
    return decode("Artifact", str(given.get("artifactID")))


def _update(_root: object, info: Info, input: Given) -> dict[str, Any]:
    change = ArtifactChange(
        description=input.get("description"),
        metadata=input.get("metadata"),
        ttl_seconds=whole("ttlDurationSeconds", input.get("ttlDurationSeconds")),
        tags_added=tag_names(input.get("tagsToAdd")),
        tags_removed=tag_names(input.get("tagsToDelete")),
    )
    return {"artifact": info.context.hub.artifacts.revise(_artifact_id(input), change)}


def _delete(_root: object, info: Info, input: Given) -> dict[str, Any]:
    known = info.context.hub.artifacts
    return {"artifact": known.delete(_artifact_id(input), with_aliases=bool(input.get("deleteAliases")))}


def _target(info: Info, given: Given) -> CollectionRow:
    name = str(given.get("artifactCollectionName"))
    project = find_project(info, given.get("entityName"), given.get("projectName"))
    found = project and info.context.hub.artifacts.collection_named(project, name)
    if not found:
        raise Missing(f"artifact: {name[:140]!r} is not in {given.get('entityName')}/{given.get('projectName')}")
    return found


def _add_aliases(_root: object, info: Info, input: Given) -> dict[str, bool]:
    for alias in input.get("aliases") or ():
        info.context.hub.artifacts.add_aliases(_artifact_id(input), _target(info, alias), alias_names([alias]))
    return {"success": True}


def _delete_aliases(_root: object, info: Info, input: Given) -> dict[str, bool]:
    for alias in input.get("aliases") or ():
        info.context.hub.artifacts.delete_aliases(_artifact_id(input), _target(info, alias), alias_names([alias]))
    return {"success": True}


def _link(_root: object, info: Info, input: Given) -> dict[str, Any]:
    known = info.context.hub.artifacts
    given_id, client_id = input.get("artifactID"), input.get("clientID")
    number = decode("Artifact", str(given_id)) if given_id else known.id_of_client(str(client_id))
    if number is None:
        raise Missing("artifact: it is not here yet; wait until it is logged, then link it")
    name = str(input.get("artifactPortfolioName") or "")
    place = (input.get("entityName"), input.get("projectName"), name)
    found = known.link(info.context.user, number, place, alias_names(input.get("aliases")))
    return {"versionIndex": found.version, "artifactMembership": found}


def _unlink(_root: object, info: Info, input: Given) -> dict[str, bool]:
    info.context.hub.artifacts.unlink(_artifact_id(input), collection_id(str(input.get("artifactPortfolioID"))))
    return {"success": True}


def _collection(given: Given) -> int:
    ids = ("artifactSequenceID", "artifactPortfolioID")
    return collection_id(str(next((given[key] for key in ids if given.get(key)), None)))


def _revise_collection(_root: object, info: Info, input: Given) -> dict[str, Any]:
    known = info.context.hub.artifacts
    found = known.revise_collection(_collection(input), input.get("name"), input.get("description"))
    return {"artifactCollection": found}


def _move(_root: object, info: Info, input: Given) -> dict[str, Any]:
    word = str(input.get("destinationArtifactTypeName") or "")
    return {"artifactCollection": info.context.hub.artifacts.retype_collection(_collection(input), word)}


def _delete_collection(_root: object, info: Info, input: Given) -> dict[str, Any]:
    return {"artifactCollection": info.context.hub.artifacts.delete_collection(_collection(input))}


def _add_tags(_root: object, info: Info, input: Given) -> dict[str, Any]:
    names = tag_names(input.get("tags"))
    info.context.hub.artifacts.tag_collection(_target(info, input), names, ())
    return {"tags": tag_nodes(names)}


def _delete_tags(_root: object, info: Info, input: Given) -> dict[str, bool]:
    info.context.hub.artifacts.tag_collection(_target(info, input), (), tag_names(input.get("tags")))
    return {"success": True}


MUTATIONS: Mapping[str, Callable[..., Any]] = {
    "updateArtifact": _update,
    "deleteArtifact": _delete,
    "addAliases": _add_aliases,
    "deleteAliases": _delete_aliases,
    "linkArtifact": _link,
    "unlinkArtifact": _unlink,
    "updateArtifactSequence": _revise_collection,
    "updateArtifactPortfolio": _revise_collection,
    "moveArtifactSequence": _move,
    "deleteArtifactSequence": _delete_collection,
    "deleteArtifactPortfolio": _delete_collection,
    "createArtifactCollectionTagAssignments": _add_tags,
    "deleteArtifactCollectionTagAssignments": _delete_tags,
}
