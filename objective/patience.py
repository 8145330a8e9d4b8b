"""How long the wandb client goes on trying while its server is away, for agents and for their trials alike.

By itself it gives up after about a quarter of an hour, and what it had to tell is lost to the server: it tries 20
times, and waits 2 s, twice as long each further time and 60 s at most in between. An hour without a server is nothing
unusual, so ours tries for a day. And a server that comes back waits for nobody: ours tries every five seconds, which is
how often an agent asks for work anyway. The client takes each of its settings from a variable of that name
(`update_from_env_vars` in its `wandb_settings.py`).
"""

from collections.abc import MutableMapping

WAIT_S = 5
RETRIES = 24 * 3600 // WAIT_S
PARTS = ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
VARIABLES = {f"WANDB__{part}_RETRY_MAX": RETRIES for part in PARTS}
VARIABLES |= {f"WANDB__{part}_RETRY_WAIT_MAX_SECONDS": WAIT_S for part in PARTS}


def be_patient(environment: MutableMapping[str, str]) -> None:
    """Add what makes a client started with `environment` wait for its server; what the user set there stays."""
    for name, value in VARIABLES.items():
        environment.setdefault(name, str(value))
