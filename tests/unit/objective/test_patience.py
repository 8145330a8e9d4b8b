"""How long and how often clients ask a server that is away."""

from prunefleet.objective.patience import PARTS, RETRIES, WAIT_S, be_patient


def test_clients_ask_for_a_day_every_few_seconds() -> None:
    """All that the client sends is tried again until a day is over; what the user set stays."""
    environment = {"WANDB__GRAPHQL_RETRY_MAX": "3"}
    be_patient(environment)
    assert environment.pop("WANDB__GRAPHQL_RETRY_MAX") == "3"
    assert len(environment) == 2 * len(PARTS) - 1
    assert {environment[f"WANDB__{part}_RETRY_WAIT_MAX_SECONDS"] for part in PARTS} == {str(WAIT_S)}
    assert RETRIES * WAIT_S == 24 * 3600 and environment["WANDB__FILE_STREAM_RETRY_MAX"] == str(RETRIES)
