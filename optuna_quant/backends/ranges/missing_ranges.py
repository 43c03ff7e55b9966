"""The ops that stay in floats because calibration gives tensors around them no range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant.backends.base import MissingRange


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.ranges.tensor_range import NoRangeError


_MOST_NAMED = 8


class MissingRanges:
    """Keeps why ops stay in floats, and tells it of each op once.

    Args:
        tell:
            Gets what is told.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._found: dict[str, MissingRange] = {}

    @property
    def found(self) -> Mapping[str, MissingRange]:
        """What was found so far, by op."""
        return dict(self._found)

    def add(self, errors: Mapping[str, tuple[NoRangeError, str]]) -> None:
        """Keep what ops lack, and tell of those that are new, together.

        Args:
            errors:
                What each lacks, and where that comes from, a sentence or empty, by op.
        """
        new = {
            op: MissingRange(f"{error}{origin}", error.samples)
            for op, (error, origin) in errors.items()
            if op not in self._found
        }
        if not new:
            return
        self._found |= new
        op, first = next(iter(new.items()))
        if len(new) == 1:
            self._tell(f"Op {op!r} stays in FP32 although static mode was asked for: {first}")
            return
        self._tell(
            f"{len(new)} ops stay in FP32 although static mode was asked for, because tensors "
            f"around them have no quantization range: {listed(list(new), _MOST_NAMED)}. The "
            f"first: {first}"
        )
