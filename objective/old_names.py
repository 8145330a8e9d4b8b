"""Module names of version 0.1, which was installed as `agent`, `objective` and `infra`.

`install` lets a task, or code that a sweep carries, go on importing them: each old name leads to the same module object
as the new one. `translated` rewrites an old `python -m` in a command line. A user's own package of such a name wins.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

HOME = "prunefleet"
TOP = ("agent", "objective", "infra")
PACKAGES = frozenset(
    (
        *TOP,
        *("agent.compress", "agent.health", "agent.measure", "agent.tasks"),
        *("infra.controller", "infra.dashboard", "infra.fleet", "infra.hub", "infra.wire"),
    )
)
# Old package, new package, and the modules that went from one to the other: `old=new` where the name changed too.
MOVED = (
    ("agent", "agent.answer", "controls winner"),
    (
        "agent",
        "agent.trial",
        "bench=context place=places request stages=stage_cache steps=stages timing=latency trial=run",
    ),
    ("agent", "agent.tracking", "report=tracked_run vocabulary=summary server=probe outlast=retry"),
    ("agent", "agent.host", "cache=cache_files journal failures watch=progress watchdog stop"),
    ("agent", "agent.compress", "weights"),
    ("agent.tasks", "agent.tasks.code", "code=source carried"),
    ("agent.tasks", "agent.tasks.data", "divide pictures sources=downloads"),
    ("agent.tasks", "agent.tasks.networks", "zoo network=resnet efficientnet_lite"),
    ("agent.tasks", "agent.tasks.ready", "fashion_mnist elpv image_folder torchvision_set labelled"),
    ("agent.measure", "agent.measure", "engine=openvino_core"),
    ("agent.measure", "agent.measure.runners", "runners=base choice=registry command_runner=command"),
    ("agent.measure", "agent.measure.runners", "onnx_runner=onnx onnx_file torch_runner=torch trtexec deployed"),
    ("agent.measure", "agent.measure.remote", "elsewhere remote=device_queue polled=polled_queue queues=choice"),
    ("agent.measure", "agent.measure.remote", "stand_ins=stubs"),
    ("agent.measure", "agent.measure.energy", "energy=sources meters nvml"),
    ("objective", "objective", "outcomes=host_outcomes"),
    ("objective", "objective.goals", "goal score pareto stats"),
    ("objective", "objective.profiles", "profile space warm=warm_points worth"),
    ("infra", "infra", "remote=wandb_api admin=hub_admin"),
    ("infra.controller", "infra.controller", "base=contract"),
    ("infra.controller", "infra.controller.engines", "engines=registry bayes generic grid random"),
    ("infra.controller", "infra.controller.engines", "optuna_engine wandb_engine"),
    ("infra.controller", "infra.controller.pruning", "pruning=engine search channels choices"),
    ("infra.controller", "infra.controller.models", "models=accuracy evidence=kernels surrogate latencies acquisition"),
    ("infra.controller", "infra.controller.stopping", "stop=hyperband optimistic"),
)


def _table() -> Iterator[tuple[str, str]]:
    for old, new, modules in MOVED:
        for module in modules.split():
            before, _, after = module.partition("=")
            yield f"{old}.{before}", f"{HOME}.{new}.{after or before}"


NEW_NAMES = dict(_table())
COMMANDS = ("agent", "agent.measure.trtexec", "infra.cli", "infra.controller", "infra.server")
"""What version 0.1 started by `python -m`."""
_COMMAND = re.compile(rf"(python[\d.]*\s+(?:-\w+\s+)*?-m\s+)({'|'.join(map(re.escape, COMMANDS))})(?=\s|$)")


def new_name(old: str) -> str:
    """Return the name that a module of version 0.1 has today, such as "prunefleet.agent.tasks.task"."""
    return NEW_NAMES.get(old, f"{HOME}.{old}")


def translated(command: str) -> str:
    """Return a shell's `command` with an old module after `python -m`, such as agent.measure.trtexec, made today's."""
    return _COMMAND.sub(lambda found: found[1] + new_name(found[2]), command)


def translated_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command with an old module after `python -m` made today's."""
    found = list(words)
    for place, word in enumerate(words[1:], start=1):
        python = any(each.rpartition("/")[2].startswith(("python", "${interpreter}")) for each in words[:place])
        if python and word in COMMANDS and words[place - 1] == "-m":
            found[place] = new_name(word)
    return found


class _OldPackage(ModuleType):
    """Stands for a package of version 0.1: it has no folder, so that each of its modules is asked of `_Finder`."""


class _Loader(Loader):
    """Gives the module that an old name stands for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the package's stand-in, or the module itself under its new name."""
        _warn(spec.name)
        if spec.name in PACKAGES:
            return _OldPackage(spec.name, f"Old name of `{self._name}`.")
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Put back what the import system has just overwritten: the module's own account of itself."""
        if self._spec is not None:
            module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds modules by their old names, once nothing else has; `folders` are those of today's rooms.

    Python holds one lock for all imports while it asks: nothing is imported here, only files are looked for.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where an old name leads; None for any other, and inside a user's package of such a name."""
        top = fullname.partition(".")[0]
        if top not in TOP or (fullname != top and not _is_ours(sys.modules.get(top))):
            return None
        name, package = new_name(fullname), fullname in PACKAGES
        if not self._exists(name, package):
            return None
        return ModuleSpec(fullname, _Loader(name), is_package=package)

    def _exists(self, name: str, package: bool) -> bool:
        _, room, *inside = name.split(".")
        place = self._folders[room].joinpath(*inside)
        return (place / "__init__.py").is_file() if package else place.with_name(f"{place.name}.py").is_file()


_told: list[str] = []


def _warn(name: str) -> None:
    """Tell the first old name that is imported, once for a process."""
    if not _told:
        _told.append(name)
        told = f"prunefleet: `{name}` is a module name of version 0.1; it still works here"
        print(f"{told}: write `from prunefleet import …` in its place (docs/python.md)", file=sys.stderr)


def _is_ours(module: ModuleType | None) -> bool:
    """Return whether a top-level module is our stand-in, or a folder without `__init__.py`, which only adds to it."""
    return isinstance(module, _OldPackage) or getattr(module, "__file__", "") is None


def install() -> None:
    """Let this process import modules by their names of version 0.1; called twice, it does nothing more."""
    if any(isinstance(each, _Finder) for each in sys.meta_path):
        return
    specs = {room: importlib.util.find_spec(f"{HOME}.{room}") for room in TOP}
    folders = {room: Path(str(spec.origin)).parent for room, spec in specs.items() if spec is not None}
    sys.meta_path.append(_Finder(folders))
