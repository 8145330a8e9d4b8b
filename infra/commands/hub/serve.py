"""`prunefleet hub`: serve sweeps."""

import argparse
import sys
from pathlib import Path

from prunefleet.infra.commands.command import BAD_INPUT, Command
from prunefleet.infra.commands.hub import backup, check, gc, keys, restore, users
from prunefleet.infra.settings import BY_NAME, whole

SETTINGS = (
    *("hub_data", "host", "port", "admin_token_file", "ready_file"),
    *("tls_cert", "tls_key", "root_path", "trusted_proxies"),
    *("max_body_mb", "max_file_mb", "max_runs_project", "max_runs_user"),
)


def _run(args: argparse.Namespace) -> int:
    from prunefleet.infra.front import front
    from prunefleet.infra.hub.store.errors import StartupError
    from prunefleet.infra.hub.users.limits import MIB, Limits
    from prunefleet.infra.server import run

    def number(name: str) -> int:
        return whole(BY_NAME[name].flag, str(getattr(args, name)))

    token, ready = (Path(name) if name else None for name in (args.admin_token_file, args.ready_file))
    try:
        way = front(args.tls_cert, args.tls_key, args.root_path, args.trusted_proxies)
        sizes = number("max_body_mb") * MIB, number("max_file_mb") * MIB
        limits = Limits(*sizes, number("max_runs_project"), number("max_runs_user"))
    except StartupError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return run(Path(args.data), args.host, number("port"), token, ready, front=way, limits=limits)


COMMAND = Command(
    "hub",
    "serve sweeps to wandb clients; with a word after it, administrate such a hub",
    SETTINGS,
    _run,
    children=(users.COMMAND, keys.COMMAND, backup.COMMAND, restore.COMMAND, check.COMMAND, gc.COMMAND),
)
