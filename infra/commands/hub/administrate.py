"""What the words after `prunefleet hub` share: ask a hub, show the answer, and tell a refusal in one line."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def administrate(args: argparse.Namespace, operation: str, **arguments: object) -> int:
    """Have the hub of `args.data` perform an operation and show its answer; returns the exit code."""
    from prunefleet.infra import hub_admin

    return shown(lambda: hub_admin.perform(Path(args.data), operation, arguments))


def shown(work: Callable[[], Mapping[str, Any]]) -> int:
    """Show what an administrator asked for; returns the exit code, a refusal's own where it was refused."""
    from prunefleet.infra import hub_admin
    from prunefleet.infra.hub.store.errors import HubError

    try:
        return hub_admin.show(work())
    except HubError as error:
        print(error, file=sys.stderr)
        return hub_admin.exit_code(error)
