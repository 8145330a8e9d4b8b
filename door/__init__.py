"""Find how much to prune each layer of a neural network for a device.

What is imported from here is public and stays; the packages below may change at any time.

    import torch
    from prunefleet import classifier, groups, prune

    network, image = classifier("torchvision/resnet18", classes=10), torch.zeros(1, 3, 64, 64)
    for group in groups(network, image):
        print(group.name, group.width)
    pruned = prune(network, image, {"layer1_0_conv1": 32})
    print(pruned.params, pruned.macs)

docs/python.md lists all names. Each is loaded when it is first used, so that importing this package is quick and needs
nothing but Python. A name whose packages are not installed raises ImportError with the line that installs them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunefleet.agent.compress.api import Groups, groups, load_bundle, prune
    from prunefleet.agent.compress.groups import Group
    from prunefleet.agent.compress.prune import Pruned
    from prunefleet.agent.measure.lock import batch
    from prunefleet.agent.measure.samples import read_samples
    from prunefleet.agent.tasks.classification import Classification, Images
    from prunefleet.agent.tasks.detection import AveragePrecision, Boxes
    from prunefleet.agent.tasks.networks.zoo import classifier
    from prunefleet.agent.tasks.supervised import Supervised, cut
    from prunefleet.agent.tasks.task import Budget, Report, Task
    from prunefleet.infra.controller.ask_tell import AskTell
    from prunefleet.infra.scheduler import candidate, study
    from prunefleet.objective.errors import BadInput
    from prunefleet.objective.goals.goal import Goal
    from prunefleet.objective.goals.pareto import front, hypervolume
    from prunefleet.objective.goals.score import best
    from prunefleet.objective.profiles.profile import Profile
    from prunefleet.objective.profiles.space import GroupSpec, Space
    from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

__all__ = [
    "AskTell",
    "AveragePrecision",
    "BadInput",
    "Boxes",
    "Budget",
    "Classification",
    "Failure",
    "FailureKind",
    "Goal",
    "Group",
    "GroupSpec",
    "Groups",
    "Images",
    "Profile",
    "Pruned",
    "Report",
    "Space",
    "Supervised",
    "Task",
    "TrialFailed",
    "__version__",
    "batch",
    "best",
    "candidate",
    "classifier",
    "cut",
    "front",
    "groups",
    "hypervolume",
    "load_bundle",
    "prune",
    "read_samples",
    "study",
]
__version__: str

# The module of each name, and the extra that installs what the module needs.
_HOMES = {
    "agent.compress.api": ("trial", ("Groups", "groups", "load_bundle", "prune")),
    "agent.compress.groups": ("trial", ("Group",)),
    "agent.compress.prune": ("trial", ("Pruned",)),
    "agent.measure.lock": ("", ("batch",)),
    "agent.measure.samples": ("measure", ("read_samples",)),
    "agent.tasks.classification": ("trial", ("Classification", "Images")),
    "agent.tasks.detection": ("trial", ("AveragePrecision", "Boxes")),
    "agent.tasks.networks.zoo": ("trial", ("classifier",)),
    "agent.tasks.supervised": ("trial", ("Supervised", "cut")),
    "agent.tasks.task": ("trial", ("Budget", "Report", "Task")),
    "infra.controller.ask_tell": ("hub", ("AskTell",)),
    "infra.scheduler": ("hub,engines", ("candidate", "study")),
    "objective.errors": ("", ("BadInput",)),
    "objective.goals.goal": ("", ("Goal",)),
    "objective.goals.pareto": ("", ("front", "hypervolume")),
    "objective.goals.score": ("", ("best",)),
    "objective.profiles.profile": ("", ("Profile",)),
    "objective.profiles.space": ("", ("GroupSpec", "Space")),
    "objective.trial": ("", ("Failure", "FailureKind", "TrialFailed")),
}
_HOME = {name: (module, extra) for module, (extra, names) in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # else a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used."""
        if name == "__version__":
            from importlib.metadata import version

            found = version("prunefleet")
        elif name in _HOME:
            found = getattr(_module(name), name)
        else:
            raise AttributeError(f"module 'prunefleet' has no attribute {name!r}{_near(name)}", name=name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return __all__


def _module(name: str) -> object:
    """Return the module that holds `name`; raises ImportError with the line that installs what the module needs."""
    module, extra = _HOME[name]
    try:
        return importlib.import_module(f"prunefleet.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "prunefleet":
            raise
        package = f"'prunefleet[{extra}]'" if extra else "prunefleet"
        raise ImportError(f"prunefleet.{name} needs {error.name}: pip install {package}", name=error.name) from error


def _near(name: str) -> str:
    if name.startswith("_"):
        return ""
    import difflib

    near = difflib.get_close_matches(name, __all__, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
