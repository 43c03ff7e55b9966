"""What a sampler tells of a search besides its results: guesses, and what was given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speculation:
    """How much was evaluated on a guess, because what it follows from was still running.

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
class SetAside:
    """A configuration that is not tried any more.

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
