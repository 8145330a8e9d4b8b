"""The proven groups of a sweep's dense network, found once on each host."""

from importlib.metadata import PackageNotFoundError, version

from torch import nn

from prunefleet.agent.compress.groups import Survey, survey
from prunefleet.agent.compress.proof import record
from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.tasks.task import Task, digest, task_hash

BUILDERS = ("prunefleet", "torch", "torchvision", "timm")
"""Packages whose code networks are made of."""


def survey_of(task: Task, network: nn.Module, sha256: str) -> Survey:
    """Return the groups of the dense network, from this host's cache where they were proven before.

    They are kept by the hash of the network's file, `sha256`, of the task's code and of the packages' versions. Raises
    `BadInput` as `survey` does.
    """
    name = digest(sha256, task_hash(task), *map(_version, BUILDERS))
    path = cache_folder() / "proofs" / f"{name[:32]}.json"
    found = record.read(path)
    if found is None:
        proven = survey(network, task.example_input())
        record.write(path, proven.groups, proven.whole)
        return proven
    return Survey(*found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
