"""How long the wandb client goes on trying while its server is away, for agents and for their trials alike.

By itself it gives up after about a quarter of an hour, and what it had to tell is lost to the server: it tries 20
times, and waits 2 s, twice as long each further time and 60 s at most in between. An hour without a server is nothing
unusual, so ours tries for a day. The client takes each of its settings from a variable of that name
(`update_from_env_vars` in its `wandb_settings.py`).
"""

from collections.abc import MutableMapping

RETRIES = 1440
VARIABLES = ("WANDB__GRAPHQL_RETRY_MAX", "WANDB__FILE_STREAM_RETRY_MAX", "WANDB__FILE_TRANSFER_RETRY_MAX")


def be_patient(environment: MutableMapping[str, str]) -> None:
    """Add what makes a client started with `environment` wait for its server; what the user set there stays."""
    for name in VARIABLES:
        environment.setdefault(name, str(RETRIES))
