"""What the hub refuses, each with the HTTP status that the wandb client understands.

The client retries 5xx and gives up at once on 400, 401, 403, 404, 409, so the status decides what its user sees.
"""

from __future__ import annotations


class HubError(Exception):
    """A request the hub cannot serve; the message is shown to the user as it is."""

    status = 500


class Invalid(HubError):
    """The request breaks a rule; sending it again cannot help."""

    status = 400


class TooLarge(Invalid):
    """More bytes than a limit lets in; the same in smaller parts may be."""

    status = 413


class Unauthorized(HubError):
    """The key is missing or unknown."""

    status = 401


class Denied(HubError):
    """The key is good, but not for this."""

    status = 403


class Missing(HubError):
    """There is no such project, sweep, run, agent or file."""

    status = 404


class Conflict(HubError):
    """The thing exists in another shape, or its state does not allow the change."""

    status = 409


class Unavailable(HubError):
    """Not now (disk full, shutting down): nothing was written, and the client does well to try again."""

    status = 503


class StartupError(HubError):
    """The hub cannot start here; one line says why, and the command ends with exit code 2."""


class FolderInUse(StartupError):
    """Another process holds the data folder."""
