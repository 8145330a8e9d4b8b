"""A task by its name in the sweep file: one that comes with the package, or `package.module:Class` of the user's."""

import importlib
import sys
from pathlib import Path

from agent.tasks.task import Task
from objective import checks
from objective.errors import BadInput

READY = {"fashion_mnist": "agent.tasks.fashion_mnist:FashionMNIST"}
REQUIRED = ("network", "example_input", "fit", "evaluate", "calibration")


def load_task(name: object) -> Task:
    """The task named in a sweep file, made without arguments; modules are also looked for in the working directory.

    Raises `BadInput` for a name of another form, a module or class that cannot be loaded, or a class that lacks a
    member of `Task`.
    """
    if not isinstance(name, str):
        raise BadInput("task", name, f"name one of {', '.join(READY)}, or package.module:Class")
    module, colon, attribute = READY.get(name, name).partition(":")
    if not colon or not module or not attribute:
        raise BadInput("task", name, f"name one of {', '.join(READY)}, or package.module:Class")
    task = _make(name, module, attribute)
    missing = [member for member in REQUIRED if not callable(getattr(task, member, None))]
    missing += [member for member in ("name", "metrics") if not getattr(task, member, None)]
    if missing:
        raise BadInput("task", name, f"give {attribute} the member {missing[0]}: see docs/task.md")
    checks.name("task.name", task.name)
    return task


def _make(name: str, module: str, attribute: str) -> Task:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        made: Task = getattr(importlib.import_module(module), attribute)()
    except ModuleNotFoundError as error:
        remedy = f"no module {error.name!r} here: start in its folder or set PYTHONPATH"
        raise BadInput("task", name, remedy) from error
    except AttributeError as error:
        raise BadInput("task", name, str(error)) from error
    except (ImportError, SyntaxError, TypeError) as error:
        raise BadInput("task", name, f"it does not load: {type(error).__name__}: {error}") from error
    return made
