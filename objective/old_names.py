"""Module names of version 0.1, which was installed as `agent`, `objective` and `infra`.

`install` lets a task, or code that a sweep carries, go on importing them: each old name leads to the same module object
as the new one. `translated` rewrites an old `python -m` in a command line. A user's own package of such a name wins.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
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
_MODULE = re.compile(rf"(?<![\w./-])-m(\s+)((?:{'|'.join(TOP)})(?:\.\w+)*)(?![\w./-])")


def new_name(old: str) -> str:
    """Return the name that a module of version 0.1 has today, such as "prunefleet.agent.tasks.task"."""
    return NEW_NAMES.get(old, f"{HOME}.{old}")


def translated(command: str) -> str:
    """Return `command` with every `-m` of an old module name, such as `-m agent.measure.trtexec`, made a new one."""
    return _MODULE.sub(lambda found: f"-m{found[1]}{new_name(found[2])}", command)


def translated_words(words: Sequence[str]) -> list[str]:
    """Return a command's words with an old module name after `-m` made a new one."""
    old = {place for place, word in enumerate(words) if word.partition(".")[0] in TOP and words[place - 1] == "-m"}
    return [new_name(word) if place in old else word for place, word in enumerate(words)]


class _OldPackage(ModuleType):
    """Stands for a package of version 0.1: it has no folder, so that each of its modules is asked of `_Finder`."""


class _Loader(Loader):
    """Gives the module that an old name stands for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the package's stand-in, or the module itself under its new name."""
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
    """Finds modules by their old names, once nothing else has."""

    warned = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where an old name leads; None for any other, and inside a user's package of such a name."""
        top = fullname.partition(".")[0]
        if top not in TOP or (fullname != top and not _is_ours(sys.modules.get(top))):
            return None
        name = new_name(fullname)
        if not _exists(name):
            return None
        self._warn(fullname)
        return ModuleSpec(fullname, _Loader(name), is_package=fullname in PACKAGES)

    def _warn(self, name: str) -> None:
        if not self.warned:
            self.warned = True
            told = f"prunefleet: `{name}` is a module name of version 0.1; it still works here"
            print(f"{told}: write `from prunefleet import …` in its place (docs/python.md)", file=sys.stderr)


def _is_ours(module: ModuleType | None) -> bool:
    """Return whether a top-level module is our stand-in, or a folder without `__init__.py`, which only adds to it."""
    return isinstance(module, _OldPackage) or getattr(module, "__file__", "") is None


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def install() -> None:
    """Let this process import modules by their names of version 0.1; called twice, it does nothing more."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())
