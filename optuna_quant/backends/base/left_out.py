"""What a search does not look at, as far as a backend knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace


@runtime_checkable
class TellsLeftOut(Protocol):
    """A backend that knows which ops of its model a tuning space leaves out, and why."""

    def ops_left_out(self, space: TuningSpace) -> Sequence[LeftOut]:
        """The ops that are not in a tuning space and might be, in the order of the model."""
        ...


@runtime_checkable
class TellsOtherRecipes(Protocol):
    """A backend that knows recipes which it was not asked for."""

    def other_recipes(self) -> Sequence[str]:
        """The names of those that may lower the errors of the model's ops, if there are any."""
        ...


@dataclass(frozen=True)
class MissingRange:
    """Why an op stays in floats, although static mode was asked for.

    Args:
        reason:
            What is wrong with the tensors around it, in words.
        samples:
            The calibration samples that are at fault, in words (``"calibration sample 7"``); empty
            if it is the model or a mask.
    """

    reason: str
    samples: str = ""

    def __str__(self) -> str:
        return self.reason


@runtime_checkable
class TellsMissingRanges(Protocol):
    """A backend that knows for which ops calibration has given no quantization range."""

    def missing_ranges(self) -> Mapping[str, MissingRange]:
        """Why ops stay in floats in static mode, as far as models were built, by op."""
        ...
