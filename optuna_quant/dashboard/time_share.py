"""Keep what is done beside a search within a share of its time."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import time


_FIXED = 0.01
_BYTES_PER_SECOND = 100e6
"""What an upload is expected to take before the first one was measured."""


class TimeShare:
    """The time that uploads may take of a search, which starts when this is made.

    Args:
        share:
            The part of the time that they may take in all.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._started = time.monotonic()
        self._spent = 0.0
        self._fixed = _FIXED
        self._per_byte = 1 / _BYTES_PER_SECOND

    def allows(self, nbytes: int) -> bool:
        """Whether an upload of so many bytes is expected to stay within the share.

        Args:
            nbytes:
                Its size.
        """
        expected = self._fixed + nbytes * self._per_byte
        return self._spent + expected <= self._share * (time.monotonic() - self._started)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of this block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._spent += time.monotonic() - started

    @contextlib.contextmanager
    def upload(self, nbytes: int) -> Iterator[None]:
        """Measure an upload: the next one is expected to be as fast. Its time is not counted here.

        Args:
            nbytes:
                Its size.
        """
        started = time.monotonic()
        yield
        ratio = (time.monotonic() - started) / (self._fixed + nbytes * self._per_byte)
        self._fixed *= ratio
        self._per_byte *= ratio
