"""Processes of a bench that work side by side, one thread each, and end with the one that started them."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def side_by_side(count: int) -> Iterator[Executor]:
    """So many processes; when the block is left, however it is, nothing more is begun and nothing waited for."""
    started = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and locks that others hold
    with ProcessPoolExecutor(count, mp_context=started, initializer=_end_with_parent) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """See to it that this process ends when the one that started it was killed: nobody else would tell it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def look() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
