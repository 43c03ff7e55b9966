"""Enumerate all configurations of a space, in order or at random, without listing them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import hashlib
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._engine.sampled import SampledOutcomes


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_ROUNDS = 6


class Permutation:
    """A random order of ``range(size)`` that needs no memory, whatever the size.

    A balanced Feistel network permutes the numbers of an even count of bits; a number outside the
    range is sent through again until it is inside ("cycle walking": Black and Rogaway, "Ciphers
    with arbitrary finite domains", 2002). Zero stays in its place, so that the default
    configuration comes first.

    Args:
        size:
            The number of items.
        seed:
            Which order.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self._size = size
        # The rest of the range, without zero, is permuted.
        self._half = max(1, (max(size - 2, 1).bit_length() + 1) // 2)
        self._seed = str(seed).encode()

    def __call__(self, index: int) -> int:
        """The item at a place of the order.

        Raises:
            IndexError:
                If ``index`` is not in ``range(size)``.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"There is no place {index} among {self._size} items.")
        if index == 0:
            return 0
        item = index - 1
        while True:
            item = self._feistel(item)
            if item < self._size - 1:
                return item + 1

    def _feistel(self, item: int) -> int:
        mask = (1 << self._half) - 1
        left, right = item >> self._half, item & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (self._hash(number, right) & mask)
        return (left << self._half) | right

    def _hash(self, number: int, value: int) -> int:
        width = (self._half + 7) // 8
        text = b"%b/%d/%b" % (self._seed, number, value.to_bytes(width, "big"))
        return int.from_bytes(hashlib.shake_128(text).digest(width), "big")


class Enumeration(Policy):
    """Evaluate every configuration of a space, one index after the other.

    Only the indices that were passed over because another trial had claimed them are kept, so
    the memory that it needs does not depend on the size of the space.

    Args:
        space:
            The tuning space.
        order:
            The index that comes at each place.
        fallback:
            Whether configurations with ops in fallback are included.
        stage:
            The name of the stage.
    """

    def __init__(
        self,
        space: TuningSpace,
        order: Callable[[int], int],
        *,
        fallback: bool,
        stage: str,
    ) -> None:
        self._space = space
        self._order = order
        self._fallback = fallback
        self._stage = stage
        self._size = space.count(fallback=fallback)
        self._place = 0
        self._passed: dict[str, QuantConfig] = {}
        self._sampled = SampledOutcomes()

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        for key, config in list(self._passed.items()):
            if self._sampled.is_settled(history, key):
                del self._passed[key]
            elif key not in claimed:
                return Proposal(config, self._stage)
        while self._place < self._size:
            config = self._space.config_at(self._order(self._place), fallback=self._fallback)
            self._place += 1
            if self._sampled.is_settled(history, config.key):
                continue
            # What is given out is looked at again: the trial may fail.
            self._passed[config.key] = config
            if config.key not in claimed:
                return Proposal(config, self._stage)
        return None

    def is_over(self, history: TrialHistory) -> bool:
        while self._place < self._size:
            config = self._space.config_at(self._order(self._place), fallback=self._fallback)
            if not self._sampled.is_settled(history, config.key):
                return False
            self._place += 1
        return all(self._sampled.is_settled(history, key) for key in self._passed)
