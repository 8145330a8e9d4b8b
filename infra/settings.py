"""Every setting once: name, default, help, environment variable; the commands and docs/settings.md read this table."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunefleet.objective.errors import BadInput


@dataclass(frozen=True)
class Setting:
    """One setting: an option `--name` of some commands, with an environment variable behind it where it has one."""

    name: str
    default: str | int | bool | None
    help: str
    env: str | None = None
    option: str | None = None

    @property
    def flag(self) -> str:
        """The option as it is typed, such as `--admin-token-file`."""
        return self.option or "--" + self.name.replace("_", "-")

    def initial(self, environ: Mapping[str, str] = os.environ) -> str | int | bool | None:
        """The value before the command line is read: the environment variable if set, else the default.

        Raises `BadInput` when the variable should hold a number and does not.
        """
        if self.env is None or not environ.get(self.env):
            return self.default
        if not isinstance(self.default, int):
            return environ[self.env]
        return whole(self.env, environ[self.env])


def whole(field: str, text: str) -> int:
    """`text` as a whole number of at least 0; raises `BadInput` naming `field` otherwise."""
    if not text.isascii() or not text.isdigit():
        raise BadInput(field, text, "give a whole number such as 2")
    return int(text)


SETTINGS = (
    Setting("data", ".prunefleet", "folder for the hub, the agents' logs and the answer", "PRUNEFLEET_HOME"),
    Setting("hub_data", ".prunefleet/hub", "folder with the hub's database and files", "PRUNEFLEET_HUB", "--data"),
    Setting(
        "host", "127.0.0.1", "address to listen on; another than loopback lets other machines join", "PRUNEFLEET_HOST"
    ),
    Setting("port", 8765, "port to listen on; 0 picks a free one", "PRUNEFLEET_PORT"),
    Setting("agents", 2, "how many `wandb agent` processes to keep running on this machine", "PRUNEFLEET_AGENTS"),
    Setting("until_done", False, "end when the sweep has ended, and print the answer"),
    Setting("project", "prunefleet", "project that the sweep belongs to", "WANDB_PROJECT"),
    Setting("minutes", 15, "for how long a token lets a host join"),
    Setting(
        "token",
        None,
        "join token, `-`: from standard input; in the variable it is safer, for everybody on a host sees arguments",
        "PRUNEFLEET_JOIN_TOKEN",
    ),
    Setting("no_remote_code", False, "run no code that a sweep brings, only this host's own where it is equal"),
    Setting("name", None, "what the sweep is called on this host; its id if not given"),
    Setting("answer", "demo.json", "file for the answer as JSON"),
    Setting("mixed", 60, "how many candidates pruned in several groups are timed before the first trial"),
    Setting(
        "admin_token_file",
        None,
        "file that holds the admin token; made inside the data folder if not given",
        "PRUNEFLEET_ADMIN_TOKEN_FILE",
    ),
    Setting(
        "ready_file", None, "file that gets url, api_key, admin_token and pid as JSON once connections are accepted"
    ),
    Setting("tls_cert", None, "certificate (PEM) to serve HTTPS with", "PRUNEFLEET_TLS_CERT"),
    Setting("tls_key", None, "its key (PEM, without a password)", "PRUNEFLEET_TLS_KEY"),
    Setting("root_path", None, "path that a proxy puts before every address, such as /hub", "PRUNEFLEET_ROOT_PATH"),
    Setting(
        "trusted_proxies",
        None,
        "addresses, separated by commas, whose X-Forwarded-Proto, -Host and -Prefix are believed",
        "PRUNEFLEET_TRUSTED_PROXIES",
    ),
    Setting("max_body_mb", 64, "largest request in MiB, files apart; at least 32", "PRUNEFLEET_MAX_BODY_MB"),
    Setting("max_file_mb", 16384, "largest uploaded file in MiB", "PRUNEFLEET_MAX_FILE_MB"),
    Setting("max_runs_project", 100000, "most runs of a project", "PRUNEFLEET_MAX_RUNS_PROJECT"),
    Setting("max_runs_user", 1000000, "most runs of a user", "PRUNEFLEET_MAX_RUNS_USER"),
    Setting("json", False, "print JSON instead of a table"),
    Setting("admin", False, "make the user an administrator"),
    Setting("dry_run", False, "remove nothing, tell what would go"),
    Setting("abandoned_after", 7, "days after which an artifact that was never finished goes"),
    Setting("runs_older_than", None, "days after which ended runs go with all they logged; none go if not given"),
)
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Variable:
    """An environment variable that the trials read on every host."""

    name: str
    default: str
    help: str


NO_REMOTE_CODE = "PRUNEFLEET_NO_REMOTE_CODE"
VARIABLES = (
    Variable(
        "WANDB_BASE_URL",
        "https://api.wandb.ai",
        "the sweep server: the hub's address, W&B Server's, or none for wandb.ai",
    ),
    Variable(
        "WANDB_API_KEY", "", "your key on that server; without it what `wandb login` wrote down, as for the address"
    ),
    Variable(
        "PRUNEFLEET_DATA",
        "",
        "folder of data sets, looked into before anything is downloaded; options.root is there, or by the sweep file",
    ),
    Variable(
        "PRUNEFLEET_DATA_MAP", "", "FROM=TO, several with commas between: where this host has full paths of a sweep"
    ),
    Variable(NO_REMOTE_CODE, "", "1: this host runs no code that a sweep brings, only its own where it is equal"),
    Variable("PRUNEFLEET_CACHE", "~/.cache/prunefleet", "folder for data sets, dense models and unfinished profiles"),
    Variable(
        "PRUNEFLEET_MEASURE_COMMAND",
        "",
        "the program that times networks where a sweep says `measure.runner: command`; see docs/measurement.md",
    ),
    Variable(
        "PRUNEFLEET_CACHE_MB", "4096", "the most MiB that results of trials may take in it; 0: nothing is remembered"
    ),
    Variable(
        "PRUNEFLEET_DEVICE_MINUTES",
        "10",
        "how long a trial waits for an answer of a device elsewhere; then it ends as that device's failure",
    ),
    Variable(
        "PRUNEFLEET_HOT_CELSIUS",
        "",
        "from which temperature of its processor on a host starts no trial, in place of what its sensors say",
    ),
    Variable(
        "PRUNEFLEET_FORK", "1", "0: each trial loads torch itself instead of being forked off a process that has it"
    ),
    Variable("PRUNEFLEET_DEBUG", "", "set to anything: a failed trial shows its traceback"),
    Variable(
        "PRUNEFLEET_LOG_OPERATIONS", "", "set to anything: the hub logs the name of each operation it is asked for"
    ),
)


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that outlives a sweep: data sets, dense models, profiles."""
    return Path(environ.get("PRUNEFLEET_CACHE") or "~/.cache/prunefleet").expanduser()
