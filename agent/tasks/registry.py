"""A task by its name in the sweep file: one that comes with the package, or `package.module:Class` of the user's."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunefleet.agent.tasks.task import Task
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

READY = {
    "fashion_mnist": "prunefleet.agent.tasks.ready.fashion_mnist:FashionMNIST",
    "torchvision": "prunefleet.agent.tasks.ready.torchvision_set:TorchvisionSet",
    "image_folder": "prunefleet.agent.tasks.ready.image_folder:ImageFolder",
    "elpv": "prunefleet.agent.tasks.ready.elpv:ELPV",
}
ROOT = "root"
DATA_MAP = "PRUNEFLEET_DATA_MAP"
REQUIRED = ("network", "example_input", "fit", "evaluate", "calibration")


def module_of(name: object) -> str:
    """The module that a task's name in a sweep file leads to; "" for what is no name."""
    return READY.get(name, name).partition(":")[0] if isinstance(name, str) else ""


def load_task(
    name: object, options: Mapping[str, Any] | None = None, folder: Path | None = None, beside: Path | None = None
) -> Task:
    """The task named in a sweep file, made with its `options`; modules are also looked for in the working directory.

    With the `folder` of a sweep's code they are looked for there instead, before any other place. `beside`: the sweep
    file's folder, else the working directory, where data of the package's own tasks is looked for first. Raises
    `BadInput` for a name of another form, a module or class that cannot be loaded, an option that the class does not
    take, or a class that lacks a member of `Task`.
    """
    module, colon, attribute = READY.get(name, name).partition(":") if isinstance(name, str) else ("", "", "")
    if not isinstance(name, str) or not colon or not module or not attribute:
        like = checks.near(name, READY) if isinstance(name, str) and not colon else None
        remedy = f"did you mean {like!r}?" if like else f"name one of {', '.join(READY)}, or package.module:Class"
        raise BadInput("task", name, remedy)
    task = _make(name, _found(name, module, attribute, folder), dict(options or {}), beside or Path())
    missing = [member for member in REQUIRED if not callable(getattr(task, member, None))]
    missing += [member for member in ("name", "metrics") if not getattr(task, member, None)]
    if missing:
        raise BadInput("task", name, f"give {attribute} the member {missing[0]}: see docs/task.md")
    checks.name("task.name", task.name)
    return task


def _found(name: str, module: str, attribute: str, folder: Path | None) -> Callable[..., Task]:
    here = str(Path.cwd())
    if folder:
        _prefer(folder, here)
    elif here not in sys.path:
        sys.path.append(here)
    try:
        found: Callable[..., Task] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        remedy = f"no module {error.name!r} here: start in its folder or set PYTHONPATH"
        if folder:
            remedy = f"no module {error.name!r} here: install it, or have CODE_FILES name what the sweep did not bring"
        raise BadInput("task", name, remedy) from error
    except AttributeError as error:
        raise BadInput("task", name, str(error)) from error
    except (ImportError, SyntaxError, TypeError) as error:
        raise BadInput("task", name, f"it does not load: {type(error).__name__}: {error}") from error
    return found


def _prefer(folder: Path, here: str) -> None:
    """Have modules found in `folder` first, and in the working directory no more: the two are not to be mixed.

    What was loaded before under a name of the folder's is forgotten.
    """
    sys.path[:] = [str(folder), *(each for each in sys.path if each not in ("", here, str(folder)))]
    names = {path.relative_to(folder).parts[0].removesuffix(".py") for path in folder.rglob("*.py")}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in names and not _below(folder, module):
            del sys.modules[name]
    importlib.invalidate_caches()


def _below(folder: Path, module: object) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(folder)


def _make(name: str, kind: Callable[..., Task], options: dict[str, Any], beside: Path) -> Task:
    """The task with its options; they stay with it as the sweep file has them, for its hash."""
    _fitting(name, kind, options)
    try:
        task = kind(**mapped(_beside(name, options, beside)))
        if options:
            task.given_options = options  # type: ignore[attr-defined]  # an optional member
    except ModuleNotFoundError as error:
        raise BadInput("task", name, f"install {error.name}, which it needs") from error
    except (AttributeError, ImportError, TypeError) as error:
        raise BadInput("task", name, f"it does not load: {type(error).__name__}: {error}") from error
    return task


def _beside(name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The options with the full path of a `root` that is there, below `folder`; of the package's own tasks alone."""
    root = options.get(ROOT)
    if name not in READY or not isinstance(root, str) or not (folder / root).is_dir():
        return options
    return options | {ROOT: str((folder / root).absolute())}


def mapped(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the full paths among them as this host has them, by PRUNEFLEET_DATA_MAP.

    Raises `BadInput` where that is not `FROM=TO`, or several with commas between.
    """
    pairs = []
    for pair in filter(None, os.environ.get(DATA_MAP, "").split(",")):
        there, sign, here = (part.strip() for part in pair.partition("="))
        if not sign or not Path(there).is_absolute() or not Path(here).is_absolute():
            raise BadInput(DATA_MAP, pair, "write FROM=TO with two full paths, or several with commas between")
        pairs.append((Path(there), Path(here)))
    pairs.sort(key=lambda pair: -len(pair[0].parts))  # the longest that fits counts
    return {name: _moved(value, pairs) for name, value in options.items()}


def _moved(value: Any, pairs: Sequence[tuple[Path, Path]]) -> Any:
    if isinstance(value, str) and value.startswith("/"):
        for there, here in pairs:
            if Path(value).is_relative_to(there):
                return str(here / Path(value).relative_to(there))
    return value


def _fitting(name: str, kind: Callable[..., Task], options: Mapping[str, Any]) -> None:
    """Raise `BadInput` for an option that the task's class does not take, or that it needs and is not given."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):  # no class; making it says so
        return
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return
    none = f"leave it out: {name} takes no options"
    known = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_POSITIONAL]
    for option, value in options.items():
        if option not in known:
            raise BadInput(f"options.{option}", value, checks.choose(option, known, f"{name} takes") if known else none)
    for each in parameters:
        if each.name in known and each.default is inspect.Parameter.empty and each.name not in options:
            raise BadInput(f"options.{each.name}", None, f"give this option: {name} needs it")
