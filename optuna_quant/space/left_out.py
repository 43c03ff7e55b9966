"""What a tuning space leaves out, and the weights of a model that stay in floats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd


_COLUMNS = ("op", "op_type", "weight_bytes", "reason", "remedy")
_WORTH_SAYING = 0.05
_MOST_SHOWN = 3


@dataclass(frozen=True)
class LeftOut:
    """An op that a tuning space does not have.

    Args:
        op:
            Its name.
        op_type:
            Its type.
        reason:
            Why it is left out.
        remedy:
            What to do so that it is not; empty if there is nothing.
        weight_bytes:
            The size of its floating-point constants as they are stored.
    """

    op: str
    op_type: str
    reason: str
    remedy: str = ""
    weight_bytes: int = 0

    def __str__(self) -> str:
        why = f"{self.reason}: {self.remedy}" if self.remedy else self.reason
        return f"{self.op_type} {self.op!r} {shown_bytes(self.weight_bytes)} ({why})"


@dataclass(frozen=True)
class LeftOutReason:
    """The ops that are left out for one reason.

    Args:
        reason:
            The reason.
        remedy:
            What to do about it; empty if there is nothing.
        ops:
            The ops, in the order of the model.
    """

    reason: str
    remedy: str
    ops: tuple[LeftOut, ...]

    @property
    def shown_types(self) -> str:
        """How many ops of each type, the most first: ``3 Add, 1 ReduceMean``."""
        counts = Counter(each.op_type for each in self.ops)
        return ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common())

    def __str__(self) -> str:
        why = f"{self.reason}: {self.remedy}" if self.remedy else self.reason
        return f"{self.shown_types} ({why})"


def by_reason(left_out: Iterable[LeftOut]) -> tuple[LeftOutReason, ...]:
    """Ops that are left out, together by reason; the reason of most ops first."""
    found: dict[tuple[str, str], list[LeftOut]] = {}
    for each in left_out:
        found.setdefault((each.reason, each.remedy), []).append(each)
    groups = [LeftOutReason(*why, tuple(ops)) for why, ops in found.items()]
    return tuple(sorted(groups, key=lambda group: -len(group.ops)))


def left_out_frame(left_out: Iterable[LeftOut]) -> pd.DataFrame:
    """A row for each op that is left out, in the given order.

    Returns:
        A data frame with the columns ``op``, ``op_type``, ``weight_bytes``, ``reason`` and
        ``remedy``.
    """
    import pandas as pd

    rows = [[getattr(each, column) for column in _COLUMNS] for each in left_out]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


@dataclass(frozen=True)
class FloatWeights:
    """The weights of a quantized model that are not quantized.

    Args:
        nbytes:
            Their size.
        model_bytes:
            The size of the FP32 model.
        left_out:
            The ops that have them and are not in the tuning space.
        in_fallback:
            The bytes of ops that are in the tuning space and run in floats.
        was_searched:
            Whether quantizing these ops was tried.
    """

    nbytes: int
    model_bytes: int
    left_out: Sequence[LeftOut] = ()
    in_fallback: int = 0
    was_searched: bool = True

    @property
    def is_worth_saying(self) -> bool:
        """Whether those that are not in the tuning space are a considerable part of the model."""
        return self.nbytes - self.in_fallback >= _WORTH_SAYING * self.model_bytes

    @property
    def shown_part(self) -> str:
        """How much of the model they are, in words."""
        return f"{shown_bytes(self.nbytes)} of {shown_bytes(self.model_bytes)}"

    def __str__(self) -> str:
        """Where they are, the largest first."""
        largest = sorted(self.left_out, key=lambda each: -each.weight_bytes)
        shown = [each for each in largest if each.weight_bytes][:_MOST_SHOWN]
        parts = [(each.weight_bytes, str(each)) for each in shown]
        if self.in_fallback:
            size = shown_bytes(self.in_fallback)
            what = "ops in fallback" if self.was_searched else "ops that were not tried quantized"
            parts.append((self.in_fallback, f"{what} {size}"))
        texts = [text for _, text in sorted(parts, key=lambda part: -part[0])]
        named = f": {', '.join(texts)}" if texts else ""
        return f"{self.shown_part} stay in floats{named}"


def shown_bytes(size: float) -> str:
    """A number of bytes for people."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size:.0f} bytes"
