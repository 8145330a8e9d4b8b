"""An artifact's manifest: which files it has, as the client writes it (`wandb_manifest.json`, version 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunefleet.infra.hub.artifacts.names import check_file
from prunefleet.infra.hub.store.errors import Invalid


@dataclass(frozen=True)
class ManifestEntry:
    """One file: the digest of its content (MD5 in base64, for a reference any), its size, or where it is kept."""

    digest: str
    size: int
    ref: str | None


@dataclass(frozen=True)
class Manifest:
    """Files by name; `document` is what clients read back."""

    entries: Mapping[str, ManifestEntry]
    document: Mapping[str, Any]

    def on(self, base: Manifest) -> Manifest:
        """The files of `base` and of this one, which wins where both have a name."""
        contents = {**base.document["contents"], **self.document["contents"]}
        return Manifest({**base.entries, **self.entries}, {**self.document, "contents": contents})

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return json.dumps(self.document).encode()


def parse(content: bytes) -> Manifest:
    """Read an uploaded manifest. Raises `Invalid`."""
    try:
        document = json.loads(content)
        contents = document["contents"]
        entries = {check_file(name): _entry(entry) for name, entry in contents.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(f"artifact manifest: cannot be read ({type(error).__name__}: {error}); log it again") from error
    return Manifest(entries, document)


def _entry(entry: Mapping[str, Any]) -> ManifestEntry:
    ref = entry.get("ref")
    return ManifestEntry(
        digest=str(entry["digest"]), size=int(entry.get("size") or 0), ref=None if ref is None else str(ref)
    )
