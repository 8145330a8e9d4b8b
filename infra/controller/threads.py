"""One thread for the controller's algebra: sums must not depend on how many cores a host has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    """Looks at the libraries that are loaded, once; the caller has loaded numpy and scipy."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """While it lasts, matrix products and factorisations run on one thread: the same numbers in any process."""
    found: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return found
