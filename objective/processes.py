"""Command lines of the processes that this package starts."""

import sys


def python_module(module: str, *words: str, flags: tuple[str, ...] = ()) -> list[str]:
    """Return the command line that runs `module` with this Python and the arguments `words`.

    `-P` keeps the working directory off the module path: a user's `agent.py` or `numpy.py` there is never run instead.
    """
    return [sys.executable, "-P", *flags, "-m", module, *words]
