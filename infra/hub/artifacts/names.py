"""Names that clients choose, checked before anything is done with them."""

from __future__ import annotations

import re

from prunefleet.infra.hub.store.errors import Invalid

_FILE_LIMIT = 1024  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_WORD = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,128}")
_VERSION = re.compile(r"v[0-9]+")


def check_file(name: str) -> str:
    """A file's name as it is. Raises `Invalid` where it could lead out of the folder that a client downloads into.

    Names are relative paths with `/`; `\\` counts as `/`, for on Windows it is.
    """
    parts = name.replace("\\", "/").split("/")
    bad = not name or len(name) > _FILE_LIMIT or _CONTROL.search(name) or _DRIVE.match(name) or not _encodes(name)
    if bad or any(part in ("", ".", "..") for part in parts):
        raise Invalid(f"file name: got {name[:80]!a}; use a relative path without '.', '..' or empty parts")
    return name


def check_word(label: str, word: str) -> str:
    """The name of a collection or a type, or an alias, as it is. Raises `Invalid`."""
    if not _WORD.fullmatch(word) or word in (".", "..") or not _encodes(word):
        raise Invalid(f"artifact {label}: got {word[:140]!a}; use 1 to 128 characters without / \\ : or control ones")
    return word


def check_alias(word: str) -> str:
    """An alias as it is. Raises `Invalid`, also for one that reads as a version."""
    if _VERSION.fullmatch(check_word("alias", word)):
        raise Invalid(f"artifact alias: got {word!r}, which reads as a version; choose another word")
    return word


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and a file name cannot
        return False
    return True
