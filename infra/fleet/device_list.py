"""`prunefleet device`: the queues from which devices elsewhere in the fleet take measurements."""

from prunefleet.infra.wandb_api import create_sweep, default_entity, in_one_line, open_sweeps
from prunefleet.objective import wandb_login
from prunefleet.objective.devices import device_of, queue, sweep_name
from prunefleet.objective.errors import BadInput


def add(device: str, project: str) -> str:
    """Make a device's queue in the project, unless it has one; returns the line that its host starts an agent with."""
    config = queue(device)
    with in_one_line():
        entity = _entity()
        known = open_sweeps(entity, project).get(sweep_name(device))
        return agent_line(known or create_sweep(config, entity, project))


def listed(project: str) -> list[str]:
    """A line for each device of the project: its name, and the line that its host starts an agent with."""
    with in_one_line():
        sweeps = open_sweeps(_entity(), project)
    return [f"{device_of(name)}: {agent_line(path)}" for name, path in sorted(sweeps.items()) if device_of(name)]


def agent_line(path: str) -> str:
    """What the device's host runs, in an environment with prunefleet[measure]."""
    return f"wandb agent --forward-signals {path}"


def how_to_start(line: str) -> str:
    """What to say above that line: it is for a host that has all it needs, and a hub helps one that has not."""
    return f"A host that has nothing yet: prunefleet invite {line.split()[-1]}; one with prunefleet[measure] and a key:"


def _entity() -> str:
    url = wandb_login.base_url()
    if not wandb_login.key_for(url):
        raise BadInput("WANDB_API_KEY", "", f"set it to your key on {url}, and WANDB_BASE_URL where that is another")
    return default_entity()
