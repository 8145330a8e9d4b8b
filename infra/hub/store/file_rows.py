"""What the hub hands out of files and artifacts: one frozen row per file, collection, version and alias."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from prunefleet.infra.hub.store.rows import ProjectRow


class FileOwner(StrEnum):
    """What a file belongs to."""

    RUN = "run"
    ARTIFACT = "artifact"
    MANIFEST = "manifest"


class CollectionKind(StrEnum):
    """Where the versions of a collection come from; W&B's own words."""

    SEQUENCE = "ArtifactSequence"
    PORTFOLIO = "ArtifactPortfolio"


class ArtifactState(StrEnum):
    """PENDING while its files arrive; COMMITTED for good."""

    PENDING = "PENDING"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True)
class FileRow:
    """A file of a run or an artifact, or an artifact's manifest.

    `md5` is in base64; `sha256` is None until the bytes are here; `ref` is the address of a file kept elsewhere.
    """

    id: int
    owner: FileOwner
    owner_id: int
    name: str
    md5: str
    sha256: str | None
    size: int
    ref: str | None
    updated_at: datetime


@dataclass(frozen=True)
class CollectionRow:
    """A named line of artifact versions of one type."""

    id: int
    project: ProjectRow
    name: str
    kind: CollectionKind
    type: str
    description: str | None
    tags: tuple[str, ...]
    created_at: datetime
    updated_at: datetime

    @property
    def __typename(self) -> str:
        """What graphql-core asks a value of an interface for."""
        return self.kind.value

    @property
    def entity(self) -> str:
        """Whose it is."""
        return self.project.entity


@dataclass(frozen=True)
class TypeRow:
    """A type of artifacts in a project; it is as old as its first collection."""

    id: int
    project: ProjectRow
    name: str
    created_at: datetime

    @property
    def entity(self) -> str:
        """Whose it is."""
        return self.project.entity


@dataclass(frozen=True)
class ArtifactRow:
    """A version of an artifact; `version` is None until it is committed, `metadata` is JSON."""

    id: int
    collection: CollectionRow
    version: int | None
    state: ArtifactState
    digest: str
    description: str | None
    metadata: str | None
    tags: tuple[str, ...]
    aliases_wanted: tuple[str, ...]
    ttl_seconds: int | None
    history_step: int | None
    size: int
    file_count: int
    run_id: int | None
    manifest_type: str | None
    manifest_md5: str | None
    manifest_sha256: str | None
    base_id: int | None
    created_at: datetime
    updated_at: datetime

    @property
    def entity(self) -> str:
        """Whose it is."""
        return self.collection.project.entity


@dataclass(frozen=True)
class MembershipRow:
    """An artifact as a version of a collection: the one it was logged to, or one it is linked to."""

    id: int
    collection: CollectionRow
    artifact_id: int
    version: int
    created_at: datetime

    @property
    def entity(self) -> str:
        """Whose the collection is."""
        return self.collection.project.entity


@dataclass(frozen=True)
class AliasRow:
    """A name that points to one version of a collection."""

    id: int
    name: str
    collection: CollectionRow

    @property
    def entity(self) -> str:
        """Whose the collection is."""
        return self.collection.project.entity
