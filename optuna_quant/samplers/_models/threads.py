"""Run BLAS in one thread, for matrices that are too small for more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
import threading

from threadpoolctl import ThreadpoolController


# The limit is the process's: two threads that set and reset it at the same time would end with
# the wrong one.
_lock = threading.Lock()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread.

    With matrices of some hundred rows, the threads of NumPy's and SciPy's libraries spend their
    time waiting for each other. On a machine that has other work to do that takes 10 to 40 times
    as long as one thread.
    """
    with _lock, _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
