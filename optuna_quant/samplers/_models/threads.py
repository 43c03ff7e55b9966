"""BLAS in one thread, where its matrices are too small for more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
import threading
from typing import Any


# The limit is the process's: two threads that set and reset it at the same time would end with
# the wrong one.
_lock = threading.Lock()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread, if ``threadpoolctl`` is installed; otherwise do nothing.

    With matrices of some hundred rows, the threads of NumPy's and SciPy's libraries spend their
    time waiting for each other. On a machine that has other work to do that takes 10 to 40 times
    as long as one thread.
    """
    controller = _controller()
    if controller is None:
        yield
        return
    with _lock, controller.limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    if find_spec("threadpoolctl") is None:
        return None
    return import_module("threadpoolctl").ThreadpoolController()
