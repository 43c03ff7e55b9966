"""What a backend may offer about parts of candidates that take long to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from typing import runtime_checkable


class KeepsParts(Protocol):
    """Keeps what one worker has computed for all workers."""

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        """A part: kept, or computed now. Meanwhile other workers wait for it.

        Args:
            name:
                Tells the part apart by all that it depends on, the same in every process.
            compute:
                Computes it.
            nbytes:
                About how large it is. What is too large to be kept is only computed.
        """
        ...


@runtime_checkable
class SharesParts(Protocol):
    """A backend parts of whose candidates take long to compute, such as weights by GPTQ."""

    def share_parts(self, kept: KeepsParts | None) -> None:
        """From now on look for such parts there, and compute those that are missing by way of it.

        Args:
            kept:
                Where; None for nowhere.
        """
        ...
