"""What a sampler reports besides results: speculation, abandoned configurations and races."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Speculation:
    """How much was evaluated on a guess while the results that decide it were missing.

    Args:
        evaluated:
            The number of complete trials that were such a guess.
        used:
            How many of them the strategy has asked for since.
    """

    evaluated: int
    used: int

    def __str__(self) -> str:
        if not self.evaluated:
            return "nothing was evaluated ahead of its turn"
        were = "was" if self.used == 1 else "were"
        return (
            f"{self.evaluated} evaluated ahead of {'its' if self.evaluated == 1 else 'their'} "
            f"turn, of which {self.used} {were} used"
        )


@dataclass(frozen=True)
class Abandoned:
    """A configuration that is no longer tried.

    Args:
        key:
            Its key.
        trial:
            The number of the last trial of it.
        reason:
            Why, for people.
    """

    key: str
    trial: int
    reason: str

    def __str__(self) -> str:
        return f"trial {self.trial}: {self.reason}"


@dataclass(frozen=True)
class RaceReport:
    """How a race was decided on a part of the samples.

    Args:
        name:
            The name of the stage.
        entrants:
            How many configurations took part.
        rounds:
            For each round, up to how many samples it went, and how many configurations.
        best:
            The key of the configuration that came first.
        missed:
            By how much, in units of the metric, another one may be better than that at most;
            :obj:`None` if so few samples say nothing about it.
        confidence:
            The probability with which that holds.
    """

    name: str
    entrants: int
    rounds: tuple[tuple[int, int], ...]
    best: str
    missed: float | None
    confidence: float

    def __str__(self) -> str:
        rounds = ", ".join(f"{entrants} on {samples} samples" for samples, entrants in self.rounds)
        sure = (
            "too few to be sure which is best"
            if self.missed is None
            else f"with {100 * self.confidence:g}% confidence none beats the first by more than "
            f"{self.missed:.3g}"
        )
        return f"{self.name}: {rounds}; {sure}"


@runtime_checkable
class ReportsSearch(Protocol):
    """A sampler that reports on its search, as all samplers of this package do."""

    def abandoned(self, study: optuna.Study) -> Sequence[Abandoned]:
        """The configurations that are not tried any more."""
        ...

    def speculation(self, study: optuna.Study) -> Speculation:
        """How much was evaluated on a guess."""
        ...


@runtime_checkable
class ReportsRaces(Protocol):
    """A sampler that decides races on a part of the samples, and reports them."""

    def races(self, study: optuna.Study) -> Sequence[RaceReport]:
        """How the races so far were decided."""
        ...
