"""How far a trial evaluates its configuration."""

from __future__ import annotations

from dataclasses import dataclass


_FULL = "full"
_DECIDED = "decided"


@dataclass(frozen=True)
class Fidelity:
    """How far a trial evaluates its configuration: without options on all samples.

    An evaluation that is to end early ends before that only where samples are evaluated one by
    one. :data:`FULL` and :data:`DECIDED` are the two without a number.

    Args:
        samples:
            To how many samples, even if the configuration surely fails before;
            :obj:`None` to all of them, unless it surely fails.
        until_decided:
            Whether it is also enough that the configuration probably meets the criterion.

    Raises:
        ValueError:
            If a number of samples is given together with ``until_decided``.
    """

    samples: int | None = None
    until_decided: bool = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.until_decided:
            raise ValueError(
                f"samples must be None with until_decided=True, but got {self.samples}; "
                "give one of the two."
            )

    def to_attr(self) -> str | int:
        """The value in a trial's claim: ``"full"``, ``"decided"`` or a number of samples."""
        if self.samples is not None:
            return self.samples
        return _DECIDED if self.until_decided else _FULL

    @classmethod
    def from_attr(cls, value: str | int) -> Fidelity:
        """The fidelity that :meth:`to_attr` has written.

        Args:
            value:
                The value in a claim.

        Raises:
            ValueError:
                If it is none of the three.
        """
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(samples=value)
        if value not in (_FULL, _DECIDED):
            raise ValueError(
                f"fidelity must be {_FULL!r}, {_DECIDED!r} or a number of samples, "
                f"but got {value!r}."
            )
        return DECIDED if value == _DECIDED else FULL


FULL = Fidelity()
"""All samples, unless the configuration surely fails."""
DECIDED = Fidelity(until_decided=True)
"""Until the configuration surely fails or probably meets the criterion."""
