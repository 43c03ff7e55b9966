"""A dictionary whose values take at most so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import MutableMapping
from threading import RLock
from typing import Any


CACHE_BYTES = 1 << 30


class BoundedCache(MutableMapping[Hashable, Any]):
    """A dictionary that forgets what was used longest ago when its values get too large.

    Several threads may use it. What one of them has just found in it may be gone when it looks
    again, so use :meth:`get`.

    Args:
        max_bytes:
            The most bytes that the arrays in the values, which are tuples of arrays or have an
            attribute ``nbytes``, may take. The newest value is kept even if it alone takes more.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = RLock()
        self.nbytes = 0

    def __getitem__(self, key: Hashable) -> Any:
        with self._lock:
            self._values.move_to_end(key)
            return self._values[key]

    def __setitem__(self, key: Hashable, value: Any) -> None:
        with self._lock:
            self.pop(key, None)
            self._values[key] = value
            self.nbytes += _nbytes(value)
            while self.nbytes > self._max_bytes and len(self._values) > 1:
                del self[next(iter(self._values))]

    def __delitem__(self, key: Hashable) -> None:
        with self._lock:
            self.nbytes -= _nbytes(self._values.pop(key))

    def __iter__(self) -> Iterator[Hashable]:
        with self._lock:
            return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


def _nbytes(value: Any) -> int:
    return int(sum(a.nbytes for a in value) if isinstance(value, tuple) else value.nbytes)
